"""The wire, without I/O: bytes to lines, lines to typed frames, and replies to bytes.

The splitter cuts at 0x0A only and searches each byte once, so that one byte at a time stays O(n).
Decoding is typed and happens once; only what that refuses is looked at again, slowly, to tell a
line that is no JSON object (4000) from one with a bad field (4003) and to name the field. Nothing
here raises anything but Malformed, BadField and LineTooLong, whatever the bytes.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Struct

from .clock import Dates
from .encoding import encode
from .errors import BadField, BadList, LineTooLong, Malformed, PushdError, Refusal
from .model import Accepted, Failed, Frame, FrameId, Head, MessageIn
from .status import TEXTS, Status

BOM = b"\xef\xbb\xbf"
T = TypeVar("T", bound=Struct)

_decode_frame = msgspec.json.Decoder(Frame).decode
_decode_any = msgspec.json.Decoder().decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


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
    # `in` would first try to read the bytes it looks for as a number.
    nul = line.find(b"\\") >= 0 and line.find(b"\\u0000") >= 0
    if nul or (frame.cmd is not UNSET and not frame.cmd):
        return _decode_slowly(line, most)
    return frame


def decode_request(line: bytes, request: type[T]) -> T:
    """Decode the fields of a command; raises BadField."""
    try:
        value = msgspec.json.decode(line, type=request)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # Of duplicate keys only the last one counts, also when the first is bad.
        value = _convert(_decode_object(line), request)
    if b"\\u0000" in line:
        _refuse_nul(msgspec.to_builtins(value), "")
    return value


def field_of(error: str) -> str:
    """Give the field that a message of msgspec speaks of, as `message[0].toId`; "" if none."""
    found = re.search(r" - at `\$\.?(.*)`$", error)
    return found.group(1) if found else ""


def _decode_object(line: bytes) -> dict[str, Any]:
    try:
        try:
            value = _decode_any(line)
        except msgspec.ValidationError:
            # A number that no Python value can hold, as 1e999; what follows it was not looked at.
            value = _decode_singly(_decode_members(line))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Malformed from None
    except RecursionError:
        raise Malformed("this line is nested too deeply") from None
    if not isinstance(value, dict):
        raise Malformed
    return value


def _decode_singly(members: dict[str, msgspec.Raw]) -> dict[str, Any]:
    """Decode the members of a sound object; one with a huge number becomes what no field takes."""
    value: dict[str, Any] = {}
    for name, member in members.items():
        try:
            value[name] = _decode_any(member)
        except msgspec.ValidationError:
            value[name] = math.inf
    return value


def _decode_slowly(line: bytes, most: int) -> Frame:
    fields = _decode_object(line)
    try:
        return _frame_of(fields, most)
    except Refusal as problem:
        problem.frame_id = _frame_id(fields.get("id"))
        raise


def _frame_of(fields: dict[str, Any], most: int) -> Frame:
    """Make a frame of an object by the fields that its kind knows; raises BadField."""
    if "cmd" in fields:
        cmd = fields["cmd"]
        if not isinstance(cmd, str) or not cmd:
            raise BadField("cmd", "cmd is a non-empty string")
        head = _convert(fields, Head)
        _refuse_nul(msgspec.to_builtins(head), "")
        return Frame(cmd=head.cmd, id=head.id)
    message = fields.get("message")
    if isinstance(message, list):
        frame = _convert({"id": fields.get("id")}, Frame)
        if len(message) > most:
            # Looking at each could take seconds, and telling of each many megabytes.
            raise BadField("message", f"a frame holds 1 to {most} messages")
        made = [_message_of(index, item) for index, item in enumerate(message)]
        failed = [one for one in made if isinstance(one, Failed)]
        if failed:
            raise BadList(failed[0].field, failed[0].message, failed)
        frame.message = [one for one in made if isinstance(one, MessageIn)]
        return frame
    known = {"id", "message"}
    match message:
        case "ok":
            known |= {"seq"}
        case "start" | "restart":
            known |= {"pushId", "heartbeat", "device", "accept"}
    wanted = {key: value for key, value in fields.items() if key in known}
    frame = _convert(wanted, Frame)
    _refuse_nul(msgspec.to_builtins(frame), "")
    return frame


def _message_of(index: int, item: object) -> MessageIn | Failed:
    """Make one message of a list, or tell its first bad field, so that the others are looked at."""
    try:
        message = _convert(item, MessageIn)
        _refuse_nul(msgspec.to_builtins(message), "")
    except BadField as problem:
        field = f"message[{index}].{problem.field}" if problem.field else f"message[{index}]"
        return Failed(index, int(problem.status), problem.message, field)
    return message


def _frame_id(value: object) -> FrameId:
    """Give the id of a line with a bad field, if it is one itself."""
    try:
        return msgspec.convert(value, FrameId)  # type: ignore[no-any-return]
    except msgspec.ValidationError:
        return None


def _convert(value: object, wanted: type[T]) -> T:
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        text = str(error)
        raise BadField(field_of(text), text.split(" - at `")[0]) from None


def _refuse_nul(value: object, path: str) -> None:
    """Raise BadField for U+0000 in any string of a decoded frame."""
    if isinstance(value, str) and "\0" in value:
        raise BadField(path, "U+0000 is not allowed")
    if isinstance(value, dict):
        for key, inner in value.items():
            _refuse_nul(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
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
