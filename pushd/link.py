"""One connection of a client: bytes to frames, and requests that wait for their replies.

A `Link` is made for one transport and dies with it. Requests are answered in the order in which
they were sent, so a reply belongs to the oldest one that waits. If it carries another `id` than
that request, both sides disagree about everything that follows: the link is given up, as it is
for a line that is no frame.

When a link is lost its requests are still here; whoever owns it decides which of them are sent
again. Everything that is no reply (deliveries, events) goes to `handle`, in order, while the
bytes are read: no task stands between.

It must not know of sessions, devices or reconnecting.
"""

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import msgspec

from .errors import PushdError
from .inbox import Message
from .status import TEXTS, Status

R = TypeVar("R")

log = logging.getLogger("pushd.client")

# Beyond the contract's 1 MiB, for a single message larger than planned.
MAX_REPLY = 4 * 1024 * 1024
# How long a server that is restarting may take to say when it is back, in seconds.
LAST_WORDS = 5.0


# The `id` of lines that are answered only when they are refused, which changes nothing.
UNANSWERED = "unanswered"


class ClientError(PushdError):
    """What a client raises.

    ClientError
     +-- CommandError      the server refused the request; the client goes on
     +-- BadReply          what came as the answer cannot be read
     +-- Disconnected      the connection broke; whether the request was served is unknown
     +-- ClientClosed      the client was closed
     +-- TransferError     a file cannot be sent, or did not come whole (`transfer`)
     +-- SessionEnded      the server ended the session; this client is of no more use
          +-- Replaced     the same pushId came up on another connection (11000)
          +-- SignedOut    the pushId is dead: log in again (11001)
    """


class CommandError(ClientError):
    """The server refused a request; `status` is its code, `field` what was wrong.

    `retry_after` is in seconds, 0 when not told. `failed` lists the bad messages of a frame,
    of which none was accepted.
    """

    # A newer server may use a code that our table does not know.
    status: int  # type: ignore[assignment]

    def __init__(
        self,
        status: int,
        message: str = "",
        field: str = "",
        retry_after: float = 0,
        failed: Sequence[dict[str, Any]] = (),
    ) -> None:
        super().__init__(status, message, field, retry_after, failed)
        self.status = status
        self.message = message
        self.field = field
        self.retry_after = retry_after
        self.failed = tuple(failed)

    def __str__(self) -> str:
        where = f" ({self.field})" if self.field else ""
        return f"{int(self.status)} {self.message}{where}"


class BadReply(ClientError):
    """The server granted a request, but its result is not what the contract says."""

    def __str__(self) -> str:
        return "the server's answer cannot be read"


class Disconnected(ClientError):
    """The connection broke before the answer came."""

    def __str__(self) -> str:
        return "the connection was lost"


class ClientClosed(ClientError):
    """The client was closed; what was not confirmed is unknown."""

    def __str__(self) -> str:
        return "the client is closed"


class SessionEnded(ClientError):
    """The server ended the session for good."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args and self.args[0] else TEXTS[self.status]


class Replaced(SessionEnded):
    """Another connection took up this device."""

    status = Status.ERROR_REPEAT_LOGIN


class SignedOut(SessionEnded):
    """This device was signed out; only a new login helps."""

    status = Status.ERROR_NET


class Read(msgspec.Struct, rename="camel"):
    """The `message` of an ack frame: `from_id` has read the chat up to `msg_id`."""

    from_id: str = ""
    chat_id: str = ""
    msg_id: str = ""


class Frame(msgspec.Struct, rename="camel"):
    """Any line of the server; what a kind does not have stays at its default."""

    status: int = 1
    message: str | list[Message] | Read = ""
    cmd: str | None = None
    id: int | str | None = None
    push_id: str = ""
    user_id: str = ""
    result: msgspec.Raw = msgspec.Raw(b"null")
    event: dict[str, Any] | None = None
    field: str = ""
    failed: list[dict[str, Any]] = []
    retry_after: float = 0
    next: str = ""
    heartbeat: float = 0
    epoch: str = ""

    def __repr__(self) -> str:
        return f"Frame(status={self.status}, cmd={self.cmd!r}, id={self.id!r})"

    @property
    def text(self) -> str:
        """What `message` says, if it is a text."""
        return self.message if isinstance(self.message, str) else ""

    @property
    def ok(self) -> bool:
        """Whether it grants something; an empty search says status 0 and "ok"."""
        if self.status == Status.FAILURE:
            return self.message == "ok"
        return self.status == Status.SUCCESS

    @property
    def is_reply(self) -> bool:
        """Whether it answers a request, and is no delivery, ack or event."""
        return self.cmd is not None or (self.event is None and isinstance(self.message, str))


_decode = msgspec.json.Decoder(Frame).decode
_decode_any = msgspec.json.Decoder().decode


def result_of(frame: Frame, decode: Callable[[msgspec.Raw], R] = _decode_any) -> R:
    """Decode the result of a reply; raises BadReply."""
    try:
        return decode(frame.result)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BadReply from None


class Request:
    """A line that waits for its reply; make it in a running loop.

    `number` is the `id` in the line, if it has one. `sink` is told of a good reply before
    anything that follows it is handled. A `repeatable` line may be sent again on another link.
    """

    __slots__ = ("future", "line", "number", "repeatable", "sink")

    def __init__(
        self,
        number: int | None,
        line: bytes,
        sink: Callable[[Frame], None] | None = None,
        *,
        repeatable: bool = False,
    ) -> None:
        self.number = number
        self.line = line
        self.sink = sink
        self.repeatable = repeatable
        self.future: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()

    def settle(self, frame: Frame) -> None:
        """Give the reply to whoever waits."""
        if frame.ok and self.sink is not None:
            self.sink(frame)
        if self.future.done():
            return
        if frame.ok:
            self.future.set_result(frame)
        else:
            self.fail(
                CommandError(frame.status, frame.text, frame.field, frame.retry_after, frame.failed)
            )

    def fail(self, error: ClientError) -> None:
        """Give an error to whoever waits."""
        if not self.future.done():
            self.future.set_exception(error)


class Link(asyncio.Protocol):
    """One connection.

    `handle` gets every frame that is no reply; `wake` is called when there is room to send
    again; `lost` once, at the end.
    """

    def __init__(
        self,
        *,
        handle: Callable[["Link", Frame], None],
        wake: Callable[[], None],
        lost: Callable[["Link"], None],
        clock: Callable[[], float],
    ) -> None:
        self._handle = handle
        self._wake = wake
        self._lost = lost
        self._clock = clock
        self._transport: asyncio.Transport | None = None
        self._chunks: list[bytes] = []  # the line that has no end yet
        self._size = 0  # of all chunks
        self._beat: Request | None = None  # the last heartbeat
        self._held = False  # reading is paused
        self.pending: deque[Request] = deque()  # sent and not answered, oldest first
        self.returned: list[Request] = []  # answered with "restarting": for another link
        self.sent_at = clock()  # when the last line left
        self.retry_after = 0.0  # what the server asked for before it hung up
        self.paused = False  # the transport takes no more for now
        self.finished = False  # nothing that still comes in counts
        self.violated = False  # the server sent what the contract does not allow
        self.ended = asyncio.Event()  # the transport is gone

    @property
    def made(self) -> bool:
        """Whether there has been a connection."""
        return self._transport is not None

    # From the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        _keep_alive(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._chunks:
            lines[0] = b"".join([*self._chunks, lines[0]])
            self._chunks.clear()
            self._size = 0
        for line in lines:
            if self.finished:
                return
            if len(line) > 1:
                self._receive(line)
        self._keep(rest)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.finished = True
        self.ended.set()
        self._lost(self)

    # To the transport

    def send(self, request: Request) -> None:
        """Send one request at once."""
        if self.finished:
            request.fail(Disconnected())
            return
        self.pending.append(request)
        self.write(request.line)

    def write(self, lines: bytes) -> None:
        """Send complete lines."""
        self.sent_at = self._clock()
        if self._transport is not None:
            self._transport.write(lines)

    def beat(self) -> bool:
        """Send a heartbeat; False if the one before it has no answer yet."""
        if self._beat is not None and not self._beat.future.done():
            return False
        self._beat = Request(None, b'{"status":1,"pushId":"","message":""}\n')
        # Nobody waits for it, so nobody else would look at its error.
        self._beat.future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.send(self._beat)
        return True

    def hold(self) -> None:
        """Read no more until `unhold`."""
        if self._transport is not None and not self._held:
            self._held = True
            self._transport.pause_reading()

    def unhold(self) -> None:
        """Read again."""
        if self._transport is not None and self._held:
            self._held = False
            self._transport.resume_reading()

    def close(self) -> None:
        """Hang up after what was written; what still comes in does not count."""
        self.finished = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Hang up at once."""
        self.finished = True
        if self._transport is not None:
            self._transport.abort()

    # Frames

    def _keep(self, rest: bytes) -> None:
        self._size += len(rest)
        if self._size > MAX_REPLY:
            self._give_up("a line without an end")
        elif rest:
            self._chunks.append(rest)

    def _receive(self, line: bytes) -> None:
        try:
            frame = _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._give_up("a line that is no frame")
            return
        if frame.is_reply:
            self._answer(frame)
        else:
            self._handle(self, frame)

    def _answer(self, frame: Frame) -> None:
        if frame.id == UNANSWERED:
            log.debug("a line was refused, status %d", frame.status)
            return
        if not self.pending:
            # Last words to nobody in particular, such as a refusal to serve at all.
            self.retry_after = max(self.retry_after, frame.retry_after)
            log.debug("a reply that nobody asked for, status %d", frame.status)
            return
        request = self.pending[0]
        if frame.id is not None and frame.id != request.number:
            self._give_up("a reply out of order")
            return
        if frame.status == Status.MALFORMED and request.repeatable:
            # Our lines are sound: the end of the way to the server has cut this one in two.
            self._give_up("word that half a line came")
            return
        self.pending.popleft()
        if frame.status == Status.RESTARTING and request.repeatable:
            self._return(request, frame.retry_after)
        else:
            request.settle(frame)
        self._wake()

    def _return(self, request: Request, retry_after: float) -> None:
        self.retry_after = max(self.retry_after, retry_after)
        if not self.returned:
            asyncio.get_running_loop().call_later(LAST_WORDS, self.close)
        self.returned.append(request)

    def _give_up(self, why: str) -> None:
        log.warning("the server sent %s", why)
        self.violated = True
        self.abort()


def _keep_alive(sock: Any) -> None:
    """Let the kernel find out that the peer is gone, also while data is on its way."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        options.append((socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000))
    for option in options:
        with contextlib.suppress(OSError, AttributeError):
            sock.setsockopt(*option)
