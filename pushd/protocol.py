"""The wire, without I/O: bytes to lines, lines to typed frames, and replies to bytes.

The splitter cuts at 0x0A only and remembers how far it searched, so that one byte at a time
stays O(n). Decoding is typed and happens once; only what that refuses is looked at again, slowly,
to tell a line that is no JSON object (4000) from one with a bad field (4003) and to name the
field. Nothing here raises anything but Malformed, BadField and LineTooLong, whatever the bytes.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from .clock import Dates
from .encoding import encode
from .errors import BadField, BadList, LineTooLong, Malformed, PushdError, Refusal
from .model import Accepted, Failed, Frame, FrameId, Head, MessageIn
from .status import TEXTS, Status

BOM = b"\xef\xbb\xbf"
T = TypeVar("T", bound=Struct)

_decode_frame = msgspec.json.Decoder(Frame).decode
_decode_any = msgspec.json.Decoder().decode


class Splitter:
    """Cut a stream of bytes into lines; it holds no more than the line in progress."""

    __slots__ = ("_buffer", "_fresh", "_searched", "_start")

    def __init__(self) -> None:
        self._buffer: bytes | bytearray = b""  # what has not been cut yet, from _start on
        self._start = 0  # where the next line begins
        self._searched = 0  # no line end between _start and here
        self._fresh = True  # nothing has been cut yet: a BOM may come

    @property
    def waiting(self) -> int:
        """How many bytes have not been cut into lines."""
        return len(self._buffer) - self._start

    def feed(self, data: bytes) -> None:
        """Add bytes from the peer."""
        start = self._start
        if start == len(self._buffer):
            self._buffer, self._start, self._searched = data, 0, 0
            return
        if start:
            self._searched -= start
            self._start = 0
        if isinstance(self._buffer, bytes):
            self._buffer = bytearray(self._buffer[start:])
        else:
            del self._buffer[:start]
        self._buffer += data

    def next_line(self, limit: int) -> bytes | None:
        """Cut off the next line, without its end; None while it is not complete.

        Raises LineTooLong for more than `limit` bytes, also when the end has not come yet.
        """
        buffer, start = self._buffer, self._start
        end = buffer.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(buffer)
            if len(buffer) - start > limit:
                self._refuse_overlong(limit)
            return None
        self._start = self._searched = end + 1
        line = bytes(buffer[start:end])
        if end + 1 == len(buffer):
            # An idle connection keeps nothing of what it said.
            self.clear()
        if line.endswith(b"\r"):
            line = line[:-1]
        if self._fresh:
            self._fresh = False
            line = line.removeprefix(BOM)
        if len(line) > limit:
            raise LineTooLong(limit)
        return line

    def rest(self, limit: int) -> bytes | None:
        """Cut off an unterminated last line at the end of the stream; None if there is none."""
        if not self.waiting:
            return None
        self._buffer = bytes(self._buffer[self._start :]) + b"\n"
        self._start = self._searched = 0
        return self.next_line(limit)

    def clear(self) -> None:
        """Forget everything that has not been cut."""
        self._buffer, self._start, self._searched = b"", 0, 0

    def _refuse_overlong(self, limit: int) -> None:
        head = bytes(self._buffer[self._start : self._start + len(BOM)])
        allowed = limit + (len(BOM) if self._fresh and head == BOM else 0)
        over = self.waiting - allowed
        if over > 1 or (over == 1 and self._buffer[-1] != 0x0D):
            raise LineTooLong(limit)


# --- decoding ---------------------------------------------------------------------------------


def decode_frame(line: bytes) -> Frame:
    """Decode a line; `cmd` is unset in a message_set.

    Raises Malformed if it is not one JSON object, BadField if a field of it is bad.
    """
    try:
        if not line.isascii():
            line.decode()
        frame = _decode_frame(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _decode_slowly(line)
    if (b"\\" in line and b"\\u0000" in line) or frame.cmd == "":
        return _decode_slowly(line)
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
        value = _decode_any(line)
    except msgspec.ValidationError as error:
        # Sound JSON that no Python value can hold, as 1e999.
        raise BadField(field_of(str(error)) or "?", "a number is out of range") from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Malformed from None
    except RecursionError:
        raise Malformed("this line is nested too deeply") from None
    if not isinstance(value, dict):
        raise Malformed
    return value


def _decode_slowly(line: bytes) -> Frame:
    fields = _decode_object(line)
    try:
        return _frame_of(fields)
    except Refusal as problem:
        problem.frame_id = _frame_id(fields.get("id"))
        raise


def _frame_of(fields: dict[str, Any]) -> Frame:
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
    results = ",".join(
        [
            f'{{"msgId":"{one.msg_id}","chatId":"{one.chat_id}",'
            f'"createTime":"{dates.text(one.created)}"}}'
            for one in accepted
        ]
    )
    tail = f',"id":{encode(frame_id).decode()}' if frame_id not in (None, "") else ""
    return (
        f'{{"status":1,"pushId":"{push_id}","message":"ok","result":[{results}]{tail}}}\n'
    ).encode()


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
