"""A device of a user, as the world plays it: it speaks the wire and writes the log.

It keeps the rules by which a log can be judged (tests.model.checker): a turn begins with the
reply to `start` or `restart`, what was not answered is sent again before anything new, and what
it does not know it logs as unknown.
"""

import json
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.model.entries import (
    RECALLED,
    Acked,
    Answered,
    Asked,
    Counted,
    Delivered,
    Found,
    Left,
    Resumed,
    Sent,
    Starting,
    Told,
)
from tests.sim.net import Link

if TYPE_CHECKING:
    from tests.sim.world import User, World

Frame = dict[str, Any]
# Statuses by which nothing was promised, so that the message or command is tried again.
UNKNOWN = (5030, 5000, 4290, 11001)
# What a phone may be refused with, since it does forbidden things on purpose.
REFUSED = (4003, 4004, 4005, 4006, 4007, 6004, 10000, 11000)


class Pending(NamedTuple):
    """A message that is not answered yet."""

    client_id: str
    to: str
    content: str


class Wanted(NamedTuple):
    """A reply that is to come: of a list its messages, else what it is about."""

    kind: str
    about: Any
    then: Callable[[Frame], None]
    number: int = 0  # the id that its answer carries
    size: int = 0  # bytes of its line


class Phone:
    """One device."""

    def __init__(self, world: "World", user: "User", name: str) -> None:
        self.world, self.user, self.name = world, user, name
        self.push_id = ""
        self.link: Link | None = None
        self.on = False  # the device is bound to the connection
        self.gone = False  # it is dead, and knows it
        self.turn = 0
        self.pending: list[Pending] = []  # sent and not answered for good, in the order of sending
        self.confirmed: list[tuple[Pending, int]] = []  # with its msgId
        self.seen: list[tuple[str, int]] = []  # chats and msgIds of this turn, newest last
        self.last = self.acked = 0  # taken in, acked
        self.target = 0  # what waited when it was bound goes up to this
        self.waited = 0  # how much it was
        self.eager = world.rng.random() < 0.7  # it acks each packet at once
        self._wanted: deque[Wanted] = deque()
        self._packets: deque[int] = deque()  # last seqs of packets that are not acked
        self._order: list[int] = []  # seqs taken in and not acked
        self._buffer = b""
        self._starting = False
        self._logged_out = False  # the connection is as before the login
        self._count = 0  # messages
        self._frames = 0  # that have an answer

    @property
    def log(self) -> list[Any]:
        """The log of the run."""
        return self.world.log

    @property
    def quiet(self) -> bool:
        """True when it is on, and nothing is asked or unanswered."""
        return self.on and not self._wanted and not self.pending

    @property
    def drained(self) -> bool:
        """True when it has taken in and acked all that it knows of."""
        return self.quiet and self.acked >= max(self.target, self.last)

    # --- connections --------------------------------------------------------------------------

    def connect(self) -> None:
        """Open a connection and bind the device on it; what was there before is dropped."""
        self.drop("vanish" if self.world.rng.random() < 0.3 else "close")
        self.link = self.world.connect(self)
        if self.link is None:
            return
        if self.push_id:
            self.log.append(Starting(self.name, self.user.name))
        if self.push_id and self.world.rng.random() < 0.8:
            self._ask("restart", {"status": 1, "pushId": self.push_id, "message": "restart"})
            return
        self._login()

    def _login(self) -> None:
        name = "login" if self.user.id else "register"
        fields = {"cmd": name, "phone": self.user.phone, "password": self.user.password}
        self._want(Wanted("login", None, self._logged_in), fields)
        # Sent at once: a barrier keeps it behind the login.
        frame = {"status": 1, "pushId": self.push_id, "message": "start"}
        if not self.push_id:
            self._starting = True
            self.log.append(Starting(self.name, self.user.name))
            frame["device"] = self.name
        self._ask("start", frame)

    def _logged_in(self, reply: Frame) -> None:
        if reply["status"] == 1:
            self.user.id = reply["result"]["user"]["id"]
            self.world.users_by_id[self.user.id] = self.user
        elif reply["status"] == 7001:
            self.user.id = "?"  # the register before had come through
        elif reply["status"] not in (*UNKNOWN, 4007):
            self.world.alarm(f"{self.name} cannot log in: {reply}")

    def _ask(self, gate: str, frame: Frame) -> None:
        self._want(Wanted("gate", gate, lambda reply: self._bound(gate, reply)), frame)

    def _bound(self, gate: str, reply: Frame) -> None:
        if reply["status"] != 1 or reply["message"] != "ok":
            self._not_bound(gate, reply)
            return
        if self._starting:
            self._starting = False
        elif reply["pushId"] != self.push_id:
            # The device was dead, and this is another one.
            self.world.check_dead(self, reply)
            self.log.append(Left(self.name, self.turn))
            self._rename()
            self.log.append(Starting(self.name, self.user.name))
        self.push_id = reply["pushId"]
        self.world.bound(self)
        self.turn += 1
        self.on = True
        first, last, queued = reply["first"], reply["last"], reply["queued"]
        self.log.append(Resumed(self.name, self.turn, self.user.name, first, last, queued))
        self.last = self.acked = first - 1 if queued else last
        self.target, self.waited = last, queued
        again, self.pending = self.pending, []
        while again:
            count = self.world.rng.randint(1, 20)
            self.send(again[:count])
            del again[:count]

    def _not_bound(self, gate: str, reply: Frame) -> None:
        status = reply["status"]
        if status == 11001 and gate == "restart" and "pushId" in reply.get("field", "pushId"):
            self.world.check_dead(self, reply)
            self.die()
        elif status not in (*UNKNOWN, 4006, 4007):
            self.world.alarm(f"{self.name} cannot {gate}: {reply}")
        else:
            self.drop("close")

    def _rename(self) -> None:
        """Be another device."""
        self.name, self.turn = self.world.name_phone(self.user), 0

    def die(self) -> None:
        """Note that the device is dead."""
        self.drop("close")
        if not self.gone:
            self.gone = True
            self.log.append(Left(self.name, self.turn))
            self.user.phones.remove(self)

    def drop(self, way: str) -> None:
        """Leave the connection: close, reset, or vanish."""
        link, self.link = self.link, None
        if link is not None:
            getattr(link, way)()
        self._forget()

    def _forget(self) -> None:
        """Note as unknown what was not answered."""
        wanted, self._wanted = self._wanted, deque()
        if self._starting:
            # Perhaps there is a device now that nobody will ever know.
            self._starting = False
            self._rename()
        elif any(one.about == "start" for one in wanted if one.kind == "gate"):
            # The same, if this one was dead.
            self.log.append(Starting(self.world.name_phone(self.user), self.user.name))
        for one in wanted if self.on else ():
            if one.kind == "list":
                for pending in one.about:
                    self.log.append(Answered(self.name, self.turn, pending.client_id, "unknown"))
            elif one.kind in ("command", "read"):
                self.log.append(Told(self.name, self.turn, one.about, "unknown"))
        self.on = self._logged_out = False
        self._packets.clear()
        self._order.clear()
        self.seen.clear()
        self._buffer = b""

    def ended(self, link: Link) -> None:
        """Learn that the connection is gone."""
        if link is self.link:
            self.drop("close")

    # --- what comes -----------------------------------------------------------------------------

    def received(self, link: Link, data: bytes) -> None:
        """Take bytes in."""
        if link is not self.link:
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            if link is not self.link:
                return
            self._take(json.loads(line))

    def _take(self, frame: Frame) -> None:
        message = frame.get("message")
        self.world.events += 1
        if isinstance(message, list):
            self._deliver(message)
        elif "event" in frame or isinstance(message, dict):
            self._signal(frame)
        else:
            self._answer(frame)

    def _answer(self, frame: Frame) -> None:
        # Reads are answered by silence, that is by the answer to what came behind them.
        while self._wanted and self._wanted[0].kind == "read":
            if frame.get("id") == self._wanted[0].number:
                break
            self._told_read("ok")
        if "id" not in frame and frame["status"] in (4007, 5030):
            self.drop("close")  # its queue cannot be read
            return
        if frame["status"] == 4001 and self._too_long_now:
            self.drop("close")
            return
        if not self._wanted or frame.get("id") != self._wanted[0].number:
            self.world.alarm(
                f"{self.name} was sent {frame}, not an answer to {[*self._wanted][:1]}"
            )
            return
        if frame["status"] == 5000 and not self.world.points.on["bad_statement"]:
            self.world.alarm(f"{self.name} got {frame} for {self._wanted[0]}")
        if self._wanted[0].kind == "read":
            self._told_read("unknown" if frame["status"] in UNKNOWN else "refused")
        else:
            self._wanted.popleft().then(frame)

    @property
    def _too_long_now(self) -> bool:
        """True when what was sent behind a logout is longer than a line before login may be."""
        limit = self.world.config.limits.line_before_login
        return self._logged_out and bool(self._wanted) and self._wanted[0].size > limit

    def _told_read(self, outcome: Any) -> None:
        self._wanted.popleft()
        self.log.append(Told(self.name, self.turn, "read", outcome))

    def _signal(self, frame: Frame) -> None:
        """Take a frame that nobody asked for."""
        name = frame.get("event", {}).get("name", "")
        if name == "signed_out":
            self.die()
        elif name in ("replaced", "shutdown"):
            self.drop("close")
        elif frame["status"] != 1:
            self.world.alarm(f"{self.name} was sent {frame}")

    def _deliver(self, messages: list[Frame]) -> None:
        if not self.on or self._logged_out:
            self.world.alarm(f"{self.name} was sent {messages} without being bound")
            return
        for message in messages:
            seq, fields = message["seq"], self._fields(message)
            event = fields[-1]
            self.log.append(Delivered(self.name, self.turn, seq, *fields))
            if event is not None and event.name == "gap":
                for chat, after in event.chats:
                    gaps = self.user.gaps
                    gaps[chat] = min(gaps.get(chat, after), after)
            self.world.saw(self.user, fields)
            self.last = seq
            self._order.append(seq)
            if fields[1]:
                chat = fields[2] if fields[2] != self.user.name else fields[1]
                self.seen.append((chat, fields[0]))
        self._packets.append(self.last)
        window = self.world.config.limits.window_messages
        if len(self._order) > window:
            self.world.alarm(f"I7: {len(self._order)} in flight to {self.name}, not {window}")
        if self.eager:
            self.ack_packet()

    def _fields(self, message: Frame) -> tuple[Any, ...]:
        """Give the fields of Delivered and Found behind the seq."""
        world = self.world
        content = RECALLED if message.get("recalled") else message["info"][0]["content"]
        event = world.event(self.user, message["event"]) if "event" in message else None
        names = [world.user_name(message[key]) for key in ("fromId", "toId")]
        return (int(message["msgId"]), *names, content, message["time"], event)

    # --- what it does -----------------------------------------------------------------------------

    def fresh(self, to: str, size: int = 0) -> Pending:
        """Make a message that was never sent."""
        self._count += 1
        text = f"{self.name} says {self._count}"
        return Pending(f"{self.name}-{self._count}", to, text.ljust(size, "."))

    def send(self, pendings: list[Pending]) -> None:
        """Send a list."""
        for one in pendings:
            self.log.append(Sent(self.name, self.turn, one.client_id, one.to, one.content))
        self.pending += pendings
        wanted = Wanted("list", pendings, lambda reply: self._answered(pendings, reply))
        messages = [self._message(one) for one in pendings]
        self._want(wanted, {"status": 1, "pushId": self.push_id, "message": messages})

    def _message(self, one: Pending) -> Frame:
        group = one.to.startswith("g")
        return {
            ("chatId" if group else "toId"): one.to if group else self.world.users[one.to].id,
            "type": "7" if group else "1",
            "info": [{"category": "0", "content": one.content}],
            "clientId": one.client_id,
        }

    def _answered(self, pendings: list[Pending], reply: Frame) -> None:
        status, results = reply["status"], reply.get("result")
        if status == 1 and (not results or len(results) != len(pendings)):
            self.world.alarm(f"{self.name} sent {len(pendings)} messages: {reply}")
            results = []
        if status not in (1, *UNKNOWN, *REFUSED):
            self.world.alarm(f"{self.name} sent {pendings}: {reply}")
        for index, one in enumerate(pendings):
            if status == 1:
                number = int(results[index]["msgId"]) if index < len(results or ()) else 0
                self._log_answer(one, "confirmed", number)
                self.confirmed.append((one, number))
            elif status in UNKNOWN:
                self._log_answer(one, "unknown")
            else:
                self._log_answer(one, "refused")
        if status in UNKNOWN:
            # It is to be sent again before anything new, so a new turn begins.
            self.drop("close")
            return
        done = {one.client_id for one in pendings}
        self.pending = [one for one in self.pending if one.client_id not in done]

    def _log_answer(self, one: Pending, outcome: Any, number: int = 0) -> None:
        self.log.append(Answered(self.name, self.turn, one.client_id, outcome, number))

    def send_again(self, one: Pending) -> None:
        """Send what was confirmed before, perhaps to another device."""
        self.send([one])

    def ack_packet(self) -> None:
        """Ack the oldest packet."""
        if self.on and self._packets:
            self._write({"status": 1, "pushId": self.push_id, "message": "ok"})
            self._note_acked(self._packets.popleft())

    def ack_upto(self, seq: int) -> None:
        """Ack all up to a seq that was taken in, or that was acked before."""
        if not self.on:
            return
        self._write({"status": 1, "pushId": self.push_id, "message": "ok", "seq": seq})
        while self._packets and self._packets[0] <= seq:
            self._packets.popleft()
        self._note_acked(seq)

    def ack_some(self) -> None:
        """Ack a part of what was taken in, at any of its seqs, or what was acked before."""
        if self._order:
            self.ack_upto(self.world.rng.choice(self._order))
        elif self.acked:
            self.ack_upto(self.world.rng.randint(1, self.acked))

    def _note_acked(self, upto: int) -> None:
        while self._order and self._order[0] <= upto:
            self.acked = self._order.pop(0)
            self.log.append(Acked(self.name, self.turn, self.acked))

    def read(self, chat: str, number: int) -> None:
        """Say that a chat was read."""
        group = chat.startswith("g")
        own = self.user.id
        ids = ("", own, chat) if group else (self.world.users[chat].id, own, "")
        ack: Frame = dict(zip(("fromId", "toId", "chatId"), ids, strict=True))
        ack["content"] = "ok"
        if number:
            ack["msgId"] = str(number)
        self.log.append(Asked(self.name, self.turn, "read", f"{chat} {number}"))
        self._want(Wanted("read", "read", lambda reply: None), {"status": 1, "message": ack})

    def command(
        self,
        name: str,
        /,
        action: str = "",
        about: str = "",
        then: Callable[[Frame], None] = lambda reply: None,
        **fields: Any,
    ) -> None:
        """Ask something."""
        action = action or name
        self.log.append(Asked(self.name, self.turn, action, about))

        def told(reply: Frame) -> None:
            status = reply["status"]
            turn = self.turn
            if status in UNKNOWN:
                self.log.append(Told(self.name, turn, action, "unknown"))
                self.drop("close")
                return
            if status != 1 and status not in REFUSED:
                self.world.alarm(f"{self.name} asked {name} {fields}: {reply}")
            outcome: Any = "ok" if status == 1 else "refused"
            if status == 4007:
                outcome = "unknown"  # perhaps the acks before it did not fit
            self.log.append(Told(self.name, turn, action, outcome))
            then(reply)

        self._want(Wanted("command", action, told), {"cmd": name, **fields})

    def note_count(self, what: str, about: str, value: int) -> None:
        """Log what was found out beside an answer that is being taken in."""
        self.log.append(Counted(self.name, self.turn, what, about, value))

    def logout(self) -> None:
        """End the device."""
        self.command("logout", then=lambda reply: self._out(reply))

    def _out(self, reply: Frame) -> None:
        if reply["status"] == 1:
            self._logged_out = True
            self.world.loop.call_soon(self.die)

    def heartbeat(self) -> None:
        """Give a sign of life."""
        self._want(
            Wanted("heartbeat", None, lambda reply: None),
            {"status": 1, "pushId": self.push_id, "message": ""},
        )

    def look_up(self, chat: str, after: int) -> None:
        """Read the history of a chat behind a msgId, to its end."""
        peer = self.world.users.get(chat)
        names = {"userId": peer.id} if peer else {"chatId": chat or "system"}

        def then(reply: Frame) -> None:
            if reply["status"] != 1:
                return
            for message in reply["result"]:
                fields = self._fields(message)
                self.log.append(Found(self.name, self.turn, *fields))
                self.world.saw(self.user, fields)
            if "next" in reply:
                self.world.loop.call_soon(self.look_up, chat, int(reply["next"]))

        self.command("history", "history", chat, then, after=str(after), limit=100, **names)

    def _want(self, wanted: Wanted, frame: Frame) -> None:
        self._frames += 1
        size = self._write(frame | {"id": self._frames})
        self._wanted.append(wanted._replace(number=self._frames, size=size))

    def _write(self, frame: Frame) -> int:
        """Send a frame; gives how long its line is."""
        self.world.events += 1
        line = json.dumps(frame).encode()
        if self.link is not None:
            self.link.send(line + b"\n")
        return len(line)
