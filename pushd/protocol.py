"""The wire, without I/O: bytes to lines, lines to typed frames, and replies to bytes.

The splitter cuts at 0x0A only and searches each byte once, so that one byte at a time stays O(n).
Decoding is typed and happens once; only what that refuses is looked at again, slowly, to tell a
line that is no JSON object (4000) from one with a bad field (4003) and to name the field. Nothing
here raises anything but Malformed, BadField and LineTooLong, whatever the bytes.
"""

import re
from collections.abc import Callable, Container, Iterable, Sequence
from functools import cache
from itertools import takewhile
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Struct

from .clock import Dates
from .encoding import encode
from .errors import BadField, BadList, LineTooLong, Malformed, PushdError, Refusal
from .model import Accepted, Failed, Frame, FrameId, Head, InfoIn, MessageIn
from .status import TEXTS, Status

BOM = b"\xef\xbb\xbf"
# Infos of one message that are looked at one by one; no setting allows more.
MOST_INFOS = 1000
T = TypeVar("T", bound=Struct)
V = TypeVar("V")

_decode_frame = msgspec.json.Decoder(Frame).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_word = msgspec.json.Decoder(str).decode


class Splitter:
    """Cut a stream of bytes into lines; it holds what was fed and not taken yet."""

    __slots__ = ("_cut", "_fresh", "_lines", "_next", "_partial")

    def __init__(self) -> None:
        self._lines: list[bytes] = []  # complete lines without their 0x0A
        self._next = 0  # the first of them that was not taken
        self._cut = 0  # bytes of those that were not taken, ends included
        self._partial: bytes | bytearray = b""  # the line in progress; there is no 0x0A in it
        self._fresh = True  # no line was taken yet: a BOM may come

    @property
    def waiting(self) -> int:
        """How many bytes were not taken as lines."""
        return self._cut + len(self._partial)

    def feed(self, data: bytes) -> None:
        """Add bytes from the peer; each is searched once, however small the pieces are."""
        end = data.rfind(b"\n") + 1
        if not end:
            if not self._partial:
                self._partial = data
                return
            if isinstance(self._partial, bytes):
                self._partial = bytearray(self._partial)
            self._partial += data
            return
        whole = data[: end - 1]
        if self._partial:
            whole = bytes(self._partial) + whole
        self._partial = data[end:]
        self._cut += len(whole) + 1
        lines = whole.split(b"\n")
        self._lines = self._lines[self._next :] + lines if self._lines else lines
        self._next = 0

    def next_line(self, limit: int) -> bytes | None:
        """Take the next line, without its end; None while it is not complete.

        Raises LineTooLong for more than `limit` bytes, also when the end has not come yet.
        """
        if not self._lines:
            if len(self._partial) > limit:
                self._refuse_overlong(limit)
            return None
        line = self._lines[self._next]
        self._next += 1
        self._cut -= len(line) + 1
        if self._next == len(self._lines):
            # An idle connection keeps nothing of what it said.
            self._lines, self._next = [], 0
        if line.endswith(b"\r"):
            line = line[:-1]
        if self._fresh:
            self._fresh = False
            line = line.removeprefix(BOM)
        if len(line) > limit:
            raise LineTooLong(limit)
        return line

    def rest(self, limit: int) -> bytes | None:
        """Take an unterminated last line at the end of the stream; None if there is none."""
        if not self._partial:
            return None
        self.feed(b"\n")
        return self.next_line(limit)

    def clear(self) -> None:
        """Forget everything that was not taken."""
        self._lines, self._next, self._cut, self._partial = [], 0, 0, b""

    def _refuse_overlong(self, limit: int) -> None:
        partial = self._partial
        allowed = limit + (len(BOM) if self._fresh and partial.startswith(BOM) else 0)
        over = len(partial) - allowed
        if over > 1 or (over == 1 and partial[-1] != 0x0D):
            raise LineTooLong(limit)


# --- decoding ---------------------------------------------------------------------------------


def decode_frame(line: bytes, most: int) -> Frame:
    """Decode a line; `cmd` is unset in a message_set.

    Of a list with bad messages each of these is told, unless the list holds more than `most`.
    Raises Malformed if it is not one JSON object, BadField if a field of it is bad.
    """
    try:
        if not line.isascii():
            line.decode()
        frame = _decode_frame(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _decode_slowly(line, most)
    if _may_hold_nul(line) or (frame.cmd is not UNSET and not frame.cmd):
        return _decode_slowly(line, most)
    return frame


def decode_request(line: bytes, request: type[T]) -> T:
    """Decode the fields of a command; raises BadField."""
    try:
        value = msgspec.json.decode(line, type=request)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # Of duplicate keys only the last one counts, also when the first is bad.
        return _typed(_members(line, request), request)
    if _may_hold_nul(line):
        _refuse_nul(msgspec.to_builtins(value), "")
    return value


def field_of(error: str) -> str:
    """Give the field that a message of msgspec speaks of, as `message[0].toId`; "" if none."""
    found = re.search(r" - at `\$\.?(.*)`$", error)
    return found.group(1) if found else ""


def _members(line: bytes | msgspec.Raw, kind: type[Struct]) -> dict[str, msgspec.Raw]:
    """Take out of an object what a type knows, as JSON; of duplicate keys the last one counts.

    Nothing else is made into values: a line of a megabyte may hold 350,000 arrays.
    """
    found = _take(_taker(kind), line)
    members = {name: getattr(found, name) for name in found.__struct_fields__}
    return {name: value for name, value in members.items() if value is not UNSET}


def _take(decode: Callable[[bytes | msgspec.Raw], V], line: bytes | msgspec.Raw) -> V:
    try:
        return decode(line)
    except msgspec.MsgspecError:
        raise Malformed from None
    except RecursionError:
        raise Malformed("this line is nested too deeply") from None


@cache
def _members_type(kind: type[Struct]) -> type[Struct]:
    """Make a type with the names of another one, which leaves all values as JSON."""
    raw: Any = msgspec.Raw | msgspec.UnsetType
    fields = [(name, raw, UNSET) for name in kind.__struct_encode_fields__]
    return msgspec.defstruct("Members", fields)


@cache
def _taker(kind: type[Struct]) -> Callable[[bytes | msgspec.Raw], Struct]:
    """Make what decodes an object to that type."""
    return msgspec.json.Decoder(_members_type(kind)).decode


@cache
def _infos_taker() -> Callable[[bytes | msgspec.Raw], list[Struct]]:
    """Make what decodes infos in the same way, all in one go."""
    kind: Any = _members_type(InfoIn)
    return msgspec.json.Decoder(list[kind]).decode


def _decode_slowly(line: bytes, most: int) -> Frame:
    try:
        line.decode()
    except UnicodeDecodeError:
        raise Malformed from None
    members = _members(line, Frame)
    try:
        return _frame_of(members, most)
    except Refusal as problem:
        problem.frame_id = _frame_id(members.get("id"))
        raise


def _frame_of(members: dict[str, msgspec.Raw], most: int) -> Frame:
    """Make a frame of the members that its kind knows; raises BadField."""
    if "cmd" in members:
        if not _word(members["cmd"]):
            raise BadField("cmd", "cmd is a non-empty string")
        head = _typed(members, Head)
        return Frame(cmd=head.cmd, id=head.id)
    message = members.get("message", msgspec.Raw(b"null"))
    if bytes(message).startswith(b"["):
        frame = _typed(members, Frame, {"id"})
        frame.message = _messages_of(_decode_list(message), most)
        return frame
    known = {"id", "message"}
    match _word(message):
        case "ok":
            known |= {"seq"}
        case "start" | "restart":
            known |= {"pushId", "heartbeat", "device", "accept"}
    return _typed(members, Frame, known)


def _messages_of(items: list[msgspec.Raw], most: int) -> list[MessageIn]:
    if len(items) > most:
        # Looking at each could take seconds, and telling of each many megabytes.
        raise BadField("message", f"a frame holds 1 to {most} messages")
    made = [_message_of(index, item) for index, item in enumerate(items)]
    failed = [one for one in made if isinstance(one, Failed)]
    if failed:
        raise BadList(failed[0].field, failed[0].message, failed)
    return [one for one in made if isinstance(one, MessageIn)]


def _message_of(index: int, item: msgspec.Raw) -> MessageIn | Failed:
    """Make one message of a list, or tell its first bad field, so that the others are looked at."""
    try:
        if not bytes(item).startswith(b"{"):
            return _decoded(item, MessageIn)
        members = _members(item, MessageIn)
        if "info" in members:
            members["info"] = _infos_of(members["info"])
        return _typed(members, MessageIn)
    except BadField as problem:
        field = f"message[{index}].{problem.field}" if problem.field else f"message[{index}]"
        return Failed(index, int(problem.status), problem.message, field)


def _infos_of(value: msgspec.Raw) -> msgspec.Raw:
    """Leave of each info what counts of it, up to the first that is none; of too many, all.

    Such a message is refused anyway, by its first fault.
    """
    if bytes(value).startswith(b"{"):
        return msgspec.Raw(encode(_members(value, InfoIn)))
    if not bytes(value).startswith(b"[") or _starts_badly(value):
        return value
    infos = _decode_list(value)
    if len(infos) > MOST_INFOS:
        return value
    # Of msgspec's Raw its stubs say that it is bytes, and it is not.
    sound = list(takewhile(lambda one: bytes(one).startswith(b"{"), infos))
    kept = _take(_infos_taker(), raw_list(bytes(one) for one in sound))
    return msgspec.Raw(encode([*kept, *infos[len(sound) :]]))


def _starts_badly(infos: msgspec.Raw) -> bool:
    """Tell whether the first of some infos is no object: no other one counts then."""
    return not bytes(infos)[1:].lstrip(b" \t\r\n").startswith((b"{", b"]"))


def _frame_id(value: msgspec.Raw | None) -> FrameId:
    """Give the id of a line with a bad field, if it is one itself."""
    try:
        return None if value is None else msgspec.json.decode(value, type=FrameId)
    except msgspec.ValidationError:
        return None


def _word(value: msgspec.Raw) -> str:
    """Give a text, and "" for what is none."""
    try:
        return _decode_word(value)
    except msgspec.ValidationError:
        return ""


def _typed(
    members: dict[str, msgspec.Raw], wanted: type[T], among: Container[str] | None = None
) -> T:
    """Decode members to a type that knows them, or those `among` these; raises BadField."""
    line = encode({name: members[name] for name in members if among is None or name in among})
    value = _decoded(line, wanted)
    if _may_hold_nul(line):
        _refuse_nul(msgspec.to_builtins(value), "")
    return value


def _decoded(line: bytes | msgspec.Raw, wanted: type[T]) -> T:
    try:
        return msgspec.json.decode(line, type=wanted)
    except RecursionError:
        # It is deeper on the stack here than where it was first looked at.
        raise Malformed("this line is nested too deeply") from None
    except msgspec.ValidationError as error:
        text = str(error)
        raise BadField(field_of(text), text.split(" - at `")[0]) from None


def _may_hold_nul(line: bytes) -> bool:
    # `in` would first try to read the bytes it looks for as a number.
    return line.find(b"\\") >= 0 and line.find(b"\\u0000") >= 0


def _refuse_nul(value: object, path: str) -> None:
    """Raise BadField for U+0000 in any string of a decoded frame."""
    if isinstance(value, str):
        if "\0" in value:
            raise BadField(path, "U+0000 is not allowed")
    elif isinstance(value, dict):
        for key, inner in value.items():
            _refuse_nul(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            # There may be 250,000 of them, nearly all sound.
            if type(inner) is not str or "\0" in inner:
                _refuse_nul(inner, f"{path}[{index}]")


# --- encoding ---------------------------------------------------------------------------------


def packet(push_id: str, messages: Sequence[bytes]) -> bytes:
    """Encode a packet of delivered messages, each already JSON."""
    head = b'{"status":1,"pushId":"%b","message":[' % push_id.encode()
    return b"%b%b]}\n" % (head, b",".join(messages))


def reply(push_id: str, message: str, frame_id: FrameId = None, **more: object) -> bytes:
    """Encode a message_set reply of the server, with further members behind `message`."""
    fields: dict[str, object] = {"status": 1, "pushId": push_id, "message": message, **more}
    if frame_id is not None and frame_id != "":
        fields["id"] = frame_id
    return encode(fields) + b"\n"


def error(push_id: str, problem: PushdError, frame_id: FrameId = None, **more: object) -> bytes:
    """Encode an error of the message_set family; `more` may hold `failed` or `event`."""
    fields = refusal_fields(problem) | more
    return reply(push_id, text_of(problem), frame_id, **fields)


def refusal_fields(problem: PushdError) -> dict[str, object]:
    """Give the members by which a reply tells a refusal, but for its text."""
    fields: dict[str, object] = {"status": int(problem.status)}
    if isinstance(problem, Refusal):
        if problem.field:
            fields["field"] = problem.field
        if problem.retry_after:
            fields["retryAfter"] = problem.retry_after
    if isinstance(problem, BadList):
        fields["failed"] = problem.failed
    return fields


def text_of(problem: PushdError) -> str:
    """Give the text that a peer is told."""
    if isinstance(problem, Refusal):
        return problem.message
    return str(problem) if problem.status == Status.TOO_LONG else TEXTS[problem.status]


def refused_list(
    push_id: str, failures: Sequence[Failed], frame_id: FrameId, retry_after: int = 0
) -> bytes:
    """Encode the refusal of a message list; the first failure gives its status."""
    first = failures[0]
    problem = Refusal(
        Status(first.status), first.message, field=first.field, retry_after=retry_after
    )
    return error(push_id, problem, frame_id, failed=failures)


def accepted_list(
    push_id: str, accepted: Sequence[Accepted], frame_id: FrameId, dates: Dates
) -> bytes:
    """Encode the "ok" for a message list; all of it is durable."""
    if len(accepted) == 1:
        # What nearly all lists are.
        results = _result(accepted[0], dates)
    else:
        results = ",".join([_result(one, dates) for one in accepted])
    tail = f',"id":{encode(frame_id).decode()}' if frame_id not in (None, "") else ""
    return (
        f'{{"status":1,"pushId":"{push_id}","message":"ok","result":[{results}]{tail}}}\n'
    ).encode()


def _result(one: Accepted, dates: Dates) -> str:
    created = dates.text(one.created)
    return f'{{"msgId":"{one.msg_id}","chatId":"{one.chat_id}","createTime":"{created}"}}'


def envelope(
    cmd: str,
    frame_id: FrameId,
    result: object,
    date: str,
    *,
    status: int = Status.SUCCESS,
    message: str = "ok",
    more: dict[str, object] | None = None,
) -> bytes:
    """Encode the reply to a command: the public envelope with `cmd` and `id`."""
    fields: dict[str, object] = {"cmd": cmd[:64]}
    if frame_id is not None and frame_id != "":
        fields["id"] = frame_id
    fields |= {"status": int(status), "result": result, "message": message, "date": date}
    if more:
        fields |= more
    return encode(fields) + b"\n"


def raw_list(items: Iterable[bytes]) -> msgspec.Raw:
    """Put finished JSON values into one list."""
    return msgspec.Raw(b"[" + b",".join(items) + b"]")
