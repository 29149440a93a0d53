"""What clients were told, read off the wire of a trace, and whether a store still knows it.

`Transcript` makes of the calls of a trace what was said on each connection and when. `facts(at)`
is what had been confirmed when the line `at` of the trace was reached: whatever a reply, or a
delivery, had promised by then. `judge` holds that against the files that a crash or a power cut
left, after the server's own recovery.

What was asked but not answered may be there or not, so a fact about the same thing is left out
from the moment when it is asked again until it is answered.
"""

import base64
import hashlib
import json
import re
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from tests.disk.traced import NEVER, Call

Frame = dict[str, Any]
# What a fact is about: its kind and what tells it from others of its kind.
Key = tuple[str, ...]
# What tells the texts of the tools from each other.
TEXT = re.compile(r"<p\d+ \d+>")
# Answers after which it may have been done or not: internal error, restarting.
UNKNOWN = (5000, 5030)


class Exchange(NamedTuple):
    """A request and its reply, with the lines of the trace where they came and went."""

    request: Frame
    asked: int
    reply: Frame | None
    answered: int
    link: "Link"


class Told(NamedTuple):
    """Something that holds from `answered` on."""

    asked: int
    answered: int
    value: Any


class Place(NamedTuple):
    """Where a message lies in a device's queue."""

    push_id: str
    seq: int
    msg_id: int


class Link:
    """One connection: what it is logged in as, and what waits for an answer."""

    def __init__(self) -> None:
        self.user = ""
        self.push_id = ""
        self.incoming = b""
        self.outgoing = b""
        self.open: list[tuple[int, Frame]] = []
        self.acks: list[tuple[int, int]] = []  # lines and seqs of acks


class Facts(NamedTuple):
    """What holds at some moment."""

    values: dict[Key, Any]
    places: list[Place]  # of messages that were confirmed or delivered
    acked: dict[str, tuple[int, int]]  # by pushId: acked durably, and asked to be
    last: dict[str, int]  # by pushId: the highest seq that was seen


class Transcript:
    """What was said on all connections of a trace."""

    def __init__(self, calls: Iterable[Call]) -> None:
        self.exchanges: list[Exchange] = []
        self.told: dict[Key, list[Told]] = defaultdict(list)
        self.placed: dict[int, set[Place]] = defaultdict(set)  # by msgId, whenever that was
        self.seen: list[tuple[int, Place]] = []  # deliveries, as they went
        self.acks: dict[str, list[tuple[int, int, int]]] = defaultdict(list)  # asked, durable, seq
        self.confirmed: list[tuple[int, int, str]] = []  # line, msgId, content
        self.refused: list[str] = []  # contents
        self._uploads: dict[str, bytes] = {}
        self._links: dict[int, Link] = {}
        self._all: list[Link] = []
        for call in sorted(calls, key=_moment):
            self._take(call)
        for link in self._all:
            for asked, request in link.open:
                self._note(Exchange(request, asked, None, NEVER, link))
            self._durable_acks(link, NEVER)
        for list_ in self.told.values():
            list_.sort()

    # --- bytes to frames ------------------------------------------------------------------

    def _take(self, call: Call) -> None:
        if call.name == "accept4":
            if call.result >= 0:
                self._links[call.result] = Link()
                self._all.append(self._links[call.result])
        elif call.name == "close":
            self._links.pop(call.fd, None)
        elif (link := self._links.get(call.fd)) is None or call.result <= 0:
            return
        elif call.name in ("recvfrom", "read"):
            if call.end == NEVER:
                return
            link.incoming += call.strings[0]
            *lines, link.incoming = link.incoming.split(b"\n")
            for line in lines:
                self._asked(link, call.end, json.loads(line))
        elif call.name in ("sendto", "sendmsg", "write", "writev"):
            link.outgoing += b"".join(call.strings)[: call.result]
            *lines, link.outgoing = link.outgoing.split(b"\n")
            for line in lines:
                self._said(link, call.begin, json.loads(line))

    def _asked(self, link: Link, at: int, frame: Frame) -> None:
        if frame.get("message") == "ok" and "cmd" not in frame:
            link.acks.append((at, frame["seq"]))
        elif not isinstance(frame.get("message"), dict):
            link.open.append((at, frame))

    def _said(self, link: Link, at: int, frame: Frame) -> None:
        if isinstance(frame.get("message"), list):
            for message in frame["message"]:
                place = Place(link.push_id, message["seq"], int(message["msgId"]))
                self.placed[place.msg_id].add(place)
                self.seen.append((at, place))
            return
        if "event" in frame or isinstance(frame.get("message"), dict):
            return
        asked, request = link.open.pop(0)
        self._note(Exchange(request, asked, frame, at, link))

    # --- frames to facts ------------------------------------------------------------------

    def _note(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        request, asked, reply, answered, link = exchange
        if reply is not None and reply["status"] in UNKNOWN:
            exchange = exchange._replace(reply=None, answered=NEVER)
            request, asked, reply, answered, link = exchange
        if reply is not None and reply["status"] != 1:
            if isinstance(request.get("message"), list):
                self.refused += [each["info"][0]["content"] for each in request["message"]]
            return
        if reply is not None and "cmd" in request:
            self._durable_acks(link, answered)
        name = request.get("cmd") or request.get("message")
        if isinstance(name, list):
            self._messages(exchange)
        elif (tell := TELLING.get(str(name))) is not None:
            for key, value in tell(link, request, reply or {}):
                self.told[key].append(Told(asked, answered, value))
        elif name in ("save_file", "save_part"):
            self._file(request, reply["result"] if reply else {}, asked, answered)

    def _durable_acks(self, link: Link, at: int) -> None:
        for asked, seq in link.acks:
            self.acks[link.push_id].append((asked, at, seq))
        link.acks.clear()

    def _messages(self, exchange: Exchange) -> None:
        if exchange.reply is None:
            return
        for message, row in zip(exchange.request["message"], exchange.reply["result"], strict=True):
            content = message["info"][0]["content"]
            number = int(row["msgId"])
            self.confirmed.append((exchange.answered, number, content))
            told = Told(exchange.asked, exchange.answered, content)
            self.told["message", str(number)].append(told)

    def _file(self, request: Frame, result: Frame, asked: int, answered: int) -> None:
        if request.get("upload") and "upload" not in result:
            # It becomes a file, or did so without a word.
            self.told["upload", request["upload"]].append(Told(asked, NEVER, None))
        if not result:
            return
        data = base64.b64decode(request["content"])
        if request["cmd"] == "save_part":
            offset = request["offset"]
            data = self._uploads.get(request["upload"], b"")[:offset] + data
            if "path" not in result:
                self._uploads[result["upload"]] = data
        value = (len(data), hashlib.sha256(data).hexdigest())
        key = ("file", result["path"]) if "path" in result else ("upload", result["upload"])
        self.told[key].append(Told(asked, answered, value))

    def facts(self, at: int) -> Facts:
        """Give what had been confirmed at a line of the trace."""
        values = {}
        for key, tellings in self.told.items():
            by_then = [told for told in tellings if told.asked <= at]
            # Of two that were asked for at the same time either may have been the last.
            alone = all(told.answered < by_then[-1].asked for told in by_then[:-1])
            if by_then and alone and by_then[-1].answered <= at:
                values[key] = by_then[-1].value
        places = {place for when, place in self.seen if when <= at}
        for when, number, _ in self.confirmed:
            if when <= at:
                places |= self.placed[number]
        last: dict[str, int] = {}
        for when, place in self.seen:
            if when <= at:
                last[place.push_id] = max(last.get(place.push_id, 0), place.seq)
        acked = {}
        for push_id, acks in self.acks.items():
            durable = max((seq for _, sure, seq in acks if sure <= at), default=0)
            wished = max((seq for asked, _, seq in acks if asked <= at), default=0)
            acked[push_id] = (durable, wished)
        alive = {key[1] for key, value in values.items() if key[0] == "device" and value}
        kept = sorted(place for place in places if place.push_id in alive)
        return Facts(values, kept, {k: v for k, v in acked.items() if k in alive}, last)


def _moment(call: Call) -> int:
    """When a call counts: what is sent may arrive from its beginning on."""
    return call.end if call.name in ("recvfrom", "read", "accept4") else call.begin


Tellings = Iterable[tuple[Key, Any]]


def _register(link: Link, request: Frame, reply: Frame) -> Tellings:
    if reply:
        link.user = reply["result"]["user"]["id"]
    yield ("account", str(request["phone"])), link.user


def _start(link: Link, request: Frame, reply: Frame) -> Tellings:
    if reply:
        link.push_id, link.user = reply["pushId"], reply["userId"]
        yield ("device", link.push_id), True


def _login(link: Link, request: Frame, reply: Frame) -> Tellings:
    if reply:
        link.user = reply["result"]["user"]["id"]
    return ()


def _pair(value: bool) -> Callable[[Link, Frame, Frame], Tellings]:
    def tell(link: Link, request: Frame, reply: Frame) -> Tellings:
        pair = sorted((link.user, str(request["userId"])))
        yield ("friends", *pair), value

    return tell


def _block(value: bool) -> Callable[[Link, Frame, Frame], Tellings]:
    def tell(link: Link, request: Frame, reply: Frame) -> Tellings:
        yield ("blocked", link.user, str(request["userId"])), value

    return tell


def _alias(link: Link, request: Frame, reply: Frame) -> Tellings:
    yield ("alias", link.user, str(request["userId"])), request["alias"]


def _username(link: Link, request: Frame, reply: Frame) -> Tellings:
    yield ("username", link.user), request["username"]


def _logout(link: Link, request: Frame, reply: Frame) -> Tellings:
    yield ("device", link.push_id), False


def _create_group(link: Link, request: Frame, reply: Frame) -> Tellings:
    if reply:
        group = reply["result"]["id"]
        yield ("member", group, link.user), "owner"
        for user in request.get("userIds", ()):
            yield ("member", group, str(user)), "member"


def _members(value: str | None) -> Callable[[Link, Frame, Frame], Tellings]:
    def tell(link: Link, request: Frame, reply: Frame) -> Tellings:
        for user in request.get("userIds", [link.user]):
            yield ("member", str(request["groupId"]), str(user)), value

    return tell


def _notice(link: Link, request: Frame, reply: Frame) -> Tellings:
    yield ("notice", str(request["groupId"])), request["notice"]


def _recall(link: Link, request: Frame, reply: Frame) -> Tellings:
    yield ("message", str(request["msgId"])), None


# What a request promises once it is answered.
TELLING: dict[str, Callable[[Link, Frame, Frame], Tellings]] = {
    "register": _register,
    "login": _login,
    "start": _start,
    "restart": _start,
    "accept_friend": _pair(True),
    "delete_friend": _pair(False),
    "block": _block(True),
    "unblock": _block(False),
    "set_alias": _alias,
    "complete_account": _username,
    "logout": _logout,
    "create_group": _create_group,
    "invite": _members("member"),
    "kick": _members(None),
    "leave_group": _members(None),
    "update_group": _notice,
    "recall": _recall,
}

# How a fact is read from the store: a query, by its kind, of one row with one value.
QUERIES = {
    "account": "SELECT CAST(id AS TEXT) FROM account WHERE phone = ?",
    "device": "SELECT 1 FROM device WHERE token = ?",
    "friends": "SELECT count(*) = 2 FROM friendship WHERE (account, friend) IN"
    " (VALUES (?1 + 0, ?2 + 0), (?2 + 0, ?1 + 0))",
    "blocked": "SELECT count(*) FROM block WHERE account = ? AND blocked = ?",
    "alias": "SELECT alias FROM friendship WHERE account = ? AND friend = ?",
    "username": "SELECT username FROM account WHERE id = ?",
    "member": "SELECT role FROM member WHERE chat = (SELECT id FROM chat WHERE key = ?)"
    " AND account = ? AND final IS NULL",
    "notice": "SELECT notice FROM groups WHERE chat = (SELECT id FROM chat WHERE key = ?)",
}


def judge(folder: Path, facts: Facts) -> list[str]:
    """Say which facts the store of a server that stopped does not know any more."""
    path = folder / "pushd.db"
    if not path.exists():
        return ["the store is gone"] if facts.values else []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        found = []
        for key, value in facts.values.items():
            wrong = _wrong(db, folder, key, value)
            if wrong:
                found.append(f"{key[0]} {' '.join(key[1:])[:60]}: {wrong}")
        return found + _wrong_queues(db, facts)


def _wrong(db: sqlite3.Connection, folder: Path, key: Key, value: Any) -> str:
    kind, *names = key
    if kind == "message":
        return _wrong_message(db, int(names[0]), value)
    if kind == "file":
        query = "SELECT size FROM file WHERE path = ?"
        return "its row is lost" if not _one(db, query, *names) else _wrong_file(folder, key, value)
    if kind == "upload":
        return _wrong_upload(db, folder, names[0], value)
    values: list[Any] = [token_of(names[0])] if kind == "device" else list(names)
    found = _one(db, QUERIES[kind], *values)
    same = bool(found) == value if isinstance(value, bool) else found == value
    return "" if same else f"is {found!r}, was confirmed as {value!r}"


def _wrong_message(db: sqlite3.Connection, number: int, content: str | None) -> str:
    row = db.execute("SELECT body, recalled FROM message WHERE id = ?", (number,)).fetchone()
    if row is None:
        return "is lost"
    body, recalled = row
    if content is None:
        return "" if recalled else "its recall is lost"
    return "" if json.dumps(content, ensure_ascii=False)[1:-1] in body else "has another content"


def _wrong_file(folder: Path, key: Key, value: tuple[int, str]) -> str:
    path = folder / key[1]
    if not path.exists():
        return "is not there"
    data = path.read_bytes()
    if len(data) != value[0]:
        return f"has {len(data)} bytes of {value[0]}"
    return "" if hashlib.sha256(data).hexdigest() == value[1] else "has another content"


def _wrong_upload(db: sqlite3.Connection, folder: Path, name: str, value: tuple[int, str]) -> str:
    size = _one(db, "SELECT size FROM upload WHERE id = ?", name)
    if size is None:
        return "its row is lost"
    path = folder / "media" / "parts" / name
    data = path.read_bytes()[: value[0]] if path.exists() else b""
    if size < value[0]:
        return f"has {size} bytes of {value[0]}"
    return "" if hashlib.sha256(data).hexdigest() == value[1] else "has another content"


def _wrong_queues(db: sqlite3.Connection, facts: Facts) -> list[str]:
    found = []
    numbers = {
        push_id: _one(db, "SELECT id FROM device WHERE token = ?", token_of(push_id))
        for push_id in {place.push_id for place in facts.places} | set(facts.acked)
    }
    position = {
        device: (last, acked)
        for device, last, acked in db.execute("SELECT device, last, acked FROM position")
    }
    rows = {
        (device, seq): message
        for device, seq, message in db.execute("SELECT device, seq, message FROM queue")
    }
    for push_id, (durable, wished) in facts.acked.items():
        acked = position.get(numbers[push_id], (0, 0))[1]
        if not durable <= acked <= wished:
            found.append(f"acks of a device stand at {acked}, not {durable} to {wished}")
    for push_id, seq, number in facts.places:
        device = numbers[push_id]
        wished = facts.acked.get(push_id, (0, 0))[1]
        acked = min(position.get(device, (0, 0))[1], wished)
        if seq > acked and rows.get((device, seq)) != number:
            found.append(f"msgId {number} is not in queue {device} at {seq}, acked {acked}")
    return found


def _one(db: sqlite3.Connection, query: str, *values: Any) -> Any:
    row = db.execute(query, values).fetchone()
    return row[0] if row else None


def token_of(push_id: str) -> bytes:
    """Give what the store keeps of a pushId."""
    return hashlib.sha256(push_id.encode()).digest()


def judge_messages(
    folder: Path, transcript: Transcript, devices: dict[str, tuple[str, ...]]
) -> list[str]:
    """Say which texts miss a queue that they are for, are there twice, or though they were refused.

    `devices` holds, for each text, the pushIds that it is for.
    """
    path = folder / "pushd.db"
    if not path.exists():
        return []
    found = []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        stored: dict[str, list[int]] = defaultdict(list)
        for number, body in db.execute("SELECT id, body FROM message WHERE recalled IS NULL"):
            for text in TEXT.findall(body):
                stored[text].append(number)
        for text in [text for text, numbers in stored.items() if len(numbers) > 1]:
            found.append(f"{text} is stored as {stored[text]}")
        for text in transcript.refused:
            if TEXT.match(text)[0] in stored:  # type: ignore[index]
                found.append(f"{text} was refused and is there")
        for _, number, text in transcript.confirmed:
            for push_id in devices.get(text, ()):
                if not _queued(db, push_id, number):
                    found.append(f"{text}, msgId {number}, is not in a queue that it is for")
    return found


def _queued(db: sqlite3.Connection, push_id: str, number: int) -> bool:
    query = (
        "SELECT EXISTS (SELECT 1 FROM queue q WHERE q.device = d.id AND q.message = ?2)"
        " OR p.message >= ?2 FROM device d JOIN position p ON p.device = d.id WHERE d.token = ?1"
    )
    return bool(_one(db, query, token_of(push_id), number))
