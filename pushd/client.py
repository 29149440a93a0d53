"""The asyncio client: one device of one account, kept connected.

    async with Client.connect("127.0.0.1", 9527) as client:
        await client.login("18870742138", "secret1")
        await client.send("10002", "hi")
        async for message in client.messages():
            print(message.from_id, message.text)

A `Client` outlives its connections. It holds three things across a break: the name of its
device (`push_id`), the requests that nobody has answered yet, and the ids of messages that
the consumer has had. Each connection is one `Link`, which dies with its transport.

Invariants:
- Requests leave in the order of the calls, and a reply belongs to the oldest unanswered request
  of its link. A reply with another `id` than that one means that both sides disagree; the link
  is given up.
- When a link breaks, message lists go back to the head of the queue with the same `clientId`,
  which makes repeating them safe. A command that was already sent is not repeated, for nobody
  knows whether it was done: its caller gets `Disconnected`.
- A message is acked when the consumer asks for the one after it, never before, and only on the
  link that brought it. What still waits in the inbox when the next link is made is thrown away,
  for the server sends it again.
- One task at most runs in the background for each state: a heartbeat while connected, the
  reconnecting while not. Reading and writing need none: bytes are handled where they arrive,
  and what a loop turn has produced leaves in one write at its end.
- Once `_fate` is set nothing more happens: every call raises it.

It must not know how anything is stored or shown. It never logs or shows a password, a pushId
or what people wrote.
"""

import asyncio
import contextlib
import logging
import random as _random
import ssl as _ssl
import time as _time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Self, TypedDict, Unpack

import msgspec

from .calls import given
from .errors import LineTooLong
from .inbox import Inbox, Info, Message
from .link import (
    UNANSWERED,
    BadReply,
    ClientClosed,
    ClientError,
    CommandError,
    Disconnected,
    Frame,
    Link,
    Read,
    Replaced,
    Request,
    SessionEnded,
    SignedOut,
    result_of,
)
from .outgoing import MAX_LINE, Draft, cut_into_frames, decode_ids, encode_draft
from .status import Status
from .transfer import TransferError, Transfers, info_of

__all__ = [
    "BadReply",
    "Client",
    "ClientClosed",
    "ClientError",
    "CommandError",
    "Disconnected",
    "Draft",
    "Event",
    "Info",
    "LineTooLong",
    "Message",
    "Options",
    "Replaced",
    "SessionEnded",
    "SignedOut",
    "TransferError",
    "info_of",
]

log = logging.getLogger("pushd.client")

# The server keeps 256 messages in flight; a server that ignores this is not read on.
MAX_INBOX = 1024
MAX_EVENTS = 256
# What one write takes at most, before others get their turn.
FLUSH_BYTES = 256 * 1024

# Seconds
RETRY_FIRST = 1.0
RETRY_MOST = 120.0
JITTER = 0.25
CLOSE_TIMEOUT = 1.0
# Without a session the server hangs up after 60 s without a line.
ANONYMOUS_HEARTBEAT = 30.0

# Refusals of a resume that may pass; anything else is the server's last word.
_PASSING = {Status.TOO_MANY, Status.RESTARTING, Status.INTERNAL, Status.DISK_FULL}


class Event(msgspec.Struct, frozen=True, rename="camel"):
    """Something that is not a message.

    From the server, as far as `accept` asks for it: "ack" (`user_id` has read `chat_id` up to
    `msg_id`), "typing", "presence". From the client itself: "connected", "disconnected",
    "resync" (the store was restored from a backup; read chats and history anew).
    """

    name: str
    user_id: str = ""
    chat_id: str = ""
    msg_id: str = ""
    online: bool = False
    last_seen: Any = None


class Options(TypedDict, total=False):
    """The options of a client; see `Client`."""

    push_id: str
    device: str
    accept: Sequence[str]
    reconnect: bool
    ssl: _ssl.SSLContext | bool | None
    heartbeat: float
    connect_timeout: float
    max_queue: int
    pipeline: int
    clock: Callable[[], float]
    random: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]


_encode = msgspec.json.Encoder().encode


class Client(Transfers):
    """Keep one device of one account connected to a server.

    Use it as an asynchronous context manager, or call `open` and `close`. The first connection
    is tried once, and its failure raises (`OSError`, `SignedOut`, `CommandError`); later breaks
    are mended in the background: 1 s doubling to 120 s, ±25 %, never before the server's
    `retryAfter`. With `push_id` the device of that name is taken up again and no login is needed.

    `device` is a name for people, `accept` asks for "ack", "typing" and "presence" (see
    `events`), `heartbeat` is in seconds. At most `max_queue` requests wait at a time, further
    callers are held; at most `pipeline` of them are on their way without an answer.

    By TLS: `tls://host:port` as the host, or `ssl`, a context of one's own (`tls.client_context`
    makes one that trusts a file). Certificates are verified unless that context does not.

    Until a device is started the password of the last login is kept in memory, since without a
    pushId only a login can resume; `start` forgets it.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 9527,
        *,
        push_id: str = "",
        device: str = "",
        accept: Sequence[str] = (),
        reconnect: bool = True,
        ssl: _ssl.SSLContext | bool | None = None,
        # Timeouts
        heartbeat: float = 270,
        connect_timeout: float = 30,
        # Limits
        max_queue: int = 1024,
        pipeline: int = 256,
        # Time and chance
        clock: Callable[[], float] = _time.monotonic,
        random: Callable[[], float] = _random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if host.startswith("tls://"):
            host, port = _split(host.removeprefix("tls://"), port)
            ssl = ssl or True
        self.host = host
        self.port = port
        self.push_id = push_id  # the secret name of the device: keep it, to resume later
        self.user_id = ""  # whose session it is, once there is one
        self._device = device
        self._accept = list(accept)
        self._reconnect = reconnect
        self._ssl = ssl
        self._heartbeat = heartbeat
        self._connect_timeout = connect_timeout
        self._pipeline = pipeline
        self._clock = clock
        self._random = random
        self._sleep = sleep
        self._login: tuple[str, str] | None = None  # phone and password, while no device is bound
        self._session = False  # the connection is logged in
        self._started = bool(push_id)  # there is a device, or will be when connected
        self._epoch = ""  # the store's history that all seqs and ids belong to
        self._queue: deque[Request] = deque()  # not sent yet, oldest first
        self._room = asyncio.Semaphore(max_queue)
        self._starting = asyncio.Lock()
        self._ids = 0  # the last id given to a request
        self._ack = 0  # the seq that the next write acks, or 0
        self._inbox = Inbox(self._acknowledge)
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._eventful = asyncio.Event()
        self._link: Link | None = None
        self._ready = False  # the link has resumed the session: requests may go out
        self._scheduled = False  # a write is due at the end of this loop turn
        self._attempt = 0  # failures to connect since the last success
        self._violations = 0  # lines that the contract does not allow
        self._fate: ClientError | None = None  # why nothing works any more
        self._task: asyncio.Task[None] | None = None  # heartbeat, or reconnecting
        self._closing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "closed" if self._fate else "connected" if self._ready else "disconnected"
        return f"<Client {self.host}:{self.port} {state}>"

    # Life

    @classmethod
    def connect(cls, host: str = "127.0.0.1", port: int = 9527, **options: Unpack[Options]) -> Self:
        """Make a client for `async with`; the options are those of the class."""
        return cls(host, port, **options)

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @property
    def connected(self) -> bool:
        """Whether requests go out at once."""
        return self._ready

    @property
    def closed(self) -> bool:
        """Whether this client has ended, by `close` or by the server's word."""
        return self._fate is not None

    async def open(self) -> None:
        """Connect, and resume if there is a pushId; one attempt.

        Raises: OSError, Disconnected, CommandError, and SignedOut for a dead pushId.
        """
        self._check()
        try:
            await self._dial()
        except CommandError as error:
            if self.push_id and error.status == Status.ERROR_NET:
                raise SignedOut(error.message) from error
            raise

    async def close(self) -> None:
        """Hang up; idempotent.

        Acks of handled messages still go out. Requests without an answer raise `ClientClosed`;
        what had been sent of them may have been served.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        link = self._link
        polite = link is not None and self._ready and not link.finished
        if link is not None and polite:
            # The inbox takes nothing more, but the end of the connection must be seen.
            link.unhold()
            self._write(link, b'{"cmd":"quit"}\n')
        task = self._task
        self._end(ClientClosed(), hang_up=not polite)
        if task is not None:
            await asyncio.wait([task])
        if link is None or not link.made:
            return
        # The server hangs up first: closing with unread input would send a reset, which can
        # destroy our last acks on their way.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await link.ended.wait()
        link.abort()
        await link.ended.wait()

    # Session

    async def register(self, phone: str, password: str, username: str = "") -> dict[str, Any]:
        """Create an account, log in to it, and return it.

        Raises: CommandError.
        """
        fields = {"phone": phone, "password": password}
        return await self._object("register", **fields, **given(username=username))

    async def login(self, phone: str, password: str, *, start: bool = False) -> dict[str, Any]:
        """Log in and return the account; with `start` bind the device too.

        Raises: CommandError.
        """
        account = await self._object("login", phone=phone, password=password)
        if start:
            await self.start()
        return account

    async def start(self) -> None:
        """Bind this client as a device, so that messages flow; idempotent.

        `messages` does it by itself. Afterwards `push_id` is set. An account has ten devices:
        who comes again should keep the `push_id` and connect with it.

        Raises: CommandError without a session.
        """
        async with self._starting:
            if not self._started:
                await self._submit(self._bind("start"))

    async def logout(self) -> None:
        """Give up the session; the device, its pushId and its queue die."""
        await self.command("logout")

    # Messages

    async def send(
        self,
        user_id: str,
        text: str = "",
        *,
        client_id: str | None = None,
        chat_id: str = "",
        type: str = "1",
        infos: Iterable[Info] | None = None,
        reply_to: str = "",
        mentions: Iterable[str] = (),
        expire: int = 0,
    ) -> str:
        """Send a message and return its msgId once the server has it on disk.

        While disconnected it waits, and it is repeated over breaks until it is confirmed or
        refused. Calls that run at the same time share the way there. Who is cancelled or gets
        another error than `CommandError` does not know whether it was sent, and may send it
        again with the same `client_id`.

        Raises: CommandError, ClientClosed, SessionEnded; LineTooLong for more than 1 MiB.
        """
        draft = Draft(
            user_id=user_id,
            text=text,
            client_id=client_id or "",
            chat_id=chat_id,
            type=type,
            infos=tuple(infos or ()),
            reply_to=reply_to,
            mentions=tuple(mentions),
            expire=expire,
        )
        (msg_id,) = await self._transmit([encode_draft(draft)])
        return msg_id

    async def send_many(self, drafts: Iterable[Draft]) -> list[str]:
        """Send messages in frames of up to 100 and return their msgIds in order.

        A frame is accepted whole or not at all. If one is refused the others still go; the
        first refusal is raised when all are settled.
        """
        frames = list(cut_into_frames(drafts))
        results = await asyncio.gather(*map(self._transmit, frames), return_exceptions=True)
        ids: list[str] = []
        for result in results:
            if isinstance(result, BaseException):
                raise result
            ids += result
        return ids

    async def _transmit(self, messages: list[bytes]) -> list[str]:
        number = self._next_id()
        body = b",".join(messages)
        line = b'{"status":1,"pushId":"","id":%d,"message":[%b]}\n' % (number, body)
        frame = await self._submit(Request(number, line, repeatable=True))
        return result_of(frame, decode_ids)

    def mark_read(self, chat_id: str = "", *, user_id: str = "", msg_id: str = "") -> None:
        """Move one's read mark in a group, or in the chat with a user, forward.

        To `msg_id` if given, else to the newest message that this device has acked. It is not
        confirmed, and lost while disconnected: whoever reads on marks again.
        """
        link = self._link
        if link is None or not self._ready or link.finished:
            return
        ack = {"fromId": user_id, "toId": self.user_id, "chatId": chat_id, "content": "ok"}
        frame = {"id": UNANSWERED, "message": {**ack, **given(msgId=msg_id)}}
        self._write(link, _encode(frame) + b"\n")

    async def messages(self) -> AsyncIterator[Message]:
        """Yield the device's messages in order, each once, over all breaks; starts the device.

        A message is acked when the next one is asked for. So a process that dies while it
        handles a message gets that one again when it resumes: at least once, and exactly once
        as long as this client lives. Leaving the loop leaves the last message unacked until
        `messages` is asked again. One consumer at a time; a slow one makes the server keep the
        rest on its disk. Ends after `close` or `logout`.

        Raises: CommandError without a session, SessionEnded, Disconnected with
        `reconnect=False`.
        """
        await self.start()
        while (message := await self._inbox.take()) is not None:
            yield message
        if self._fate is not None and not isinstance(self._fate, ClientClosed):
            raise self._ended()

    async def events(self) -> AsyncIterator[Event]:
        """Yield what is not a message (see `Event`) until the client ends.

        The last 256 are kept while nobody asks; older ones are dropped.
        """
        while True:
            while self._events:
                yield self._events.popleft()
            if self._fate is not None:
                return
            self._eventful.clear()
            await self._eventful.wait()

    # Requests

    async def _call(self, cmd: str, fields: dict[str, Any]) -> Frame:
        return await self._submit(self._command(cmd, fields))

    def _command(self, cmd: str, fields: dict[str, Any]) -> Request:
        number = self._next_id()
        line = _encode({**fields, "cmd": cmd, "id": number}) + b"\n"

        def sink(frame: Frame) -> None:
            if cmd in ("login", "register"):
                self._entered(str(fields.get("phone")), str(fields.get("password")), frame)
            elif cmd in ("logout", "delete_account"):
                self._left()
            elif cmd == "change_password" and self._login is not None:
                self._login = (self._login[0], str(fields.get("new")))

        return Request(number, line, sink)

    def _next_id(self) -> int:
        self._ids += 1
        return self._ids

    def _bind(self, verb: str) -> Request:
        number = self._next_id()
        fields = {
            "status": 1,
            "pushId": self.push_id,
            "id": number,
            "message": verb,
            "heartbeat": max(1, round(self._heartbeat)),
            **given(device=self._device, accept=self._accept),
        }
        # A second `start` binds a device in place of the one whose name got lost on the way.
        return Request(number, _encode(fields) + b"\n", self._bound, repeatable=verb == "start")

    async def _submit(self, request: Request) -> Frame:
        if len(request.line) - 1 > MAX_LINE:
            raise LineTooLong(MAX_LINE)
        self._check()
        async with self._room:
            self._check()
            self._queue.append(request)
            self._wake()
            try:
                return await request.future
            except asyncio.CancelledError:
                with contextlib.suppress(ValueError):
                    self._queue.remove(request)
                raise

    def _check(self) -> None:
        if self._fate is not None:
            raise self._ended()

    def _ended(self) -> ClientError:
        # A copy: one instance raised in many places would collect all their tracebacks.
        assert self._fate is not None
        return type(self._fate)(*self._fate.args)

    # Writing

    def _wake(self) -> None:
        if self._ready and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        link = self._link
        if link is None or not self._ready or link.paused or link.finished:
            return
        lines: list[bytes] = []
        size = 0
        room = 0 if link.returned else self._pipeline - len(link.pending)
        while self._queue and len(lines) < room and size < FLUSH_BYTES:
            request = self._queue.popleft()
            if not request.future.done():
                link.pending.append(request)
                lines.append(request.line)
                size += len(request.line)
        self._write(link, b"".join(lines))
        if size >= FLUSH_BYTES:
            self._wake()

    def _write(self, link: Link, lines: bytes) -> None:
        # The ack goes first: the reply to a command behind it tells that it is committed.
        if self._ack:
            lines = b'{"status":1,"pushId":"","message":"ok","seq":%d}\n' % self._ack + lines
            self._ack = 0
        if lines:
            link.write(lines)

    def _acknowledge(self, seq: int) -> None:
        self._ack = seq
        self._violations = 0
        if self._link is not None and len(self._inbox) < MAX_INBOX // 2:
            self._link.unhold()
        self._wake()

    # Frames that are no replies

    def _handle(self, link: Link, frame: Frame) -> None:
        message = frame.message
        if isinstance(message, list):
            self._inbox.put(message)
            if len(self._inbox) > MAX_INBOX:
                link.hold()
        elif isinstance(message, Read):
            self._publish(Event("ack", message.from_id, message.chat_id, message.msg_id))
        elif frame.event is not None:
            self._happen(link, frame, frame.event)

    def _happen(self, link: Link, frame: Frame, event: dict[str, Any]) -> None:
        name = event.get("name")
        if name == "replaced":
            self._end(Replaced(frame.text))
        elif name == "signed_out":
            self._end(SignedOut(frame.text))
        elif name == "shutdown":
            link.retry_after = max(link.retry_after, frame.retry_after)
            link.close()
        else:
            with contextlib.suppress(msgspec.ValidationError):
                self._publish(msgspec.convert(event, Event))

    def _publish(self, event: Event) -> None:
        self._events.append(event)
        self._eventful.set()

    # What replies change

    def _entered(self, phone: str, password: str, frame: Frame) -> None:
        self._session = True
        with contextlib.suppress(KeyError, TypeError, BadReply):
            self.user_id = str(result_of(frame)["user"]["id"])
        if not self._started:
            self._login = (phone, password)

    def _bound(self, frame: Frame) -> None:
        self._session = self._started = True
        self._login = None
        self.push_id = frame.push_id or self.push_id
        self.user_id = frame.user_id or self.user_id
        self._heartbeat = max(1.0, frame.heartbeat or self._heartbeat)
        self._inbox.ended = False
        if frame.epoch and frame.epoch != self._epoch:
            if self._epoch:
                self._inbox.forget()
                self._publish(Event("resync"))
            self._epoch = frame.epoch

    def _left(self) -> None:
        self._session = self._started = False
        self._login = None
        self.push_id = self.user_id = ""
        self._ack = 0
        self._inbox.forget()
        self._inbox.end()

    # Connecting

    async def _dial(self) -> None:
        link = Link(handle=self._handle, wake=self._wake, lost=self._lost, clock=self._clock)
        loop = asyncio.get_running_loop()
        self._link = link
        # What came over other links cannot be acked on this one; it comes again.
        self._inbox.drop()
        self._ack = 0
        try:
            async with asyncio.timeout(self._connect_timeout):
                await loop.create_connection(
                    lambda: link, self.host, self.port, ssl=self._ssl or None
                )
                await self._resume(link)
            self._check()
            if link.finished:
                raise Disconnected()
        except BaseException:
            link.abort()
            raise
        self._connected(link)

    async def _resume(self, link: Link) -> None:
        if self.push_id:
            request = self._bind("restart")
        elif self._login is not None:
            phone, password = self._login
            request = self._command("login", {"phone": phone, "password": password})
        else:
            return
        link.send(request)
        await request.future

    def _connected(self, link: Link) -> None:
        # Who answers in a way we cannot read is not called again at once for having answered.
        self._attempt = self._violations
        self._ready = True
        self._task = asyncio.create_task(self._beat(link))
        self._publish(Event("connected"))
        self._wake()

    def _lost(self, link: Link) -> None:
        if link is not self._link:
            return
        ready, self._ready, self._link = self._ready, False, None
        self._violations += link.violated
        self._session = False
        self._take_back(link)
        # While not ready, whoever dials sees the loss by itself.
        if not ready or self._fate is not None:
            return
        self._publish(Event("disconnected"))
        log.info("lost the connection to %s:%d", self.host, self.port)
        if self._reconnect:
            self._cancel_task()
            self._task = asyncio.create_task(self._reconnecting(link.retry_after))
        else:
            self._end(Disconnected())

    def _take_back(self, link: Link) -> None:
        for request in reversed([*link.returned, *link.pending]):
            if request.repeatable and not request.future.done():
                self._queue.appendleft(request)
            else:
                request.fail(Disconnected())
        link.returned.clear()
        link.pending.clear()

    async def _reconnecting(self, retry_after: float) -> None:
        while self._fate is None:
            await self._sleep(self._delay(retry_after))
            try:
                await self._dial()
            except CommandError as error:
                if error.status not in _PASSING:
                    self._end(SignedOut(error.message))
                    return
                retry_after = error.retry_after
            except (OSError, ClientError):
                retry_after = 0
            else:
                log.info("connected to %s:%d again", self.host, self.port)
                return

    def _delay(self, retry_after: float) -> float:
        seconds: float = min(RETRY_FIRST * 2 ** min(self._attempt, 10), RETRY_MOST)
        self._attempt += 1
        spread = JITTER * (2 * self._random() - 1)
        return max(seconds * (1 + spread), retry_after * (1 + abs(spread)))

    async def _beat(self, link: Link) -> None:
        while not link.finished:
            every = self._heartbeat
            if not self._session:
                every = min(every, ANONYMOUS_HEARTBEAT)
            idle = self._clock() - link.sent_at
            if idle < every:
                await self._sleep(every - idle)
            elif not link.beat():
                log.info("%s:%d does not answer", self.host, self.port)
                link.abort()

    # Ending

    def _end(self, fate: ClientError, *, hang_up: bool = True) -> None:
        """Make everything raise `fate` from now on; only the first one counts."""
        if self._fate is not None:
            return
        self._fate = fate
        self._ready = False
        link = self._link
        waiting = [*link.returned, *link.pending] if link is not None else []
        for request in [*waiting, *self._queue]:
            request.fail(self._ended())
        self._queue.clear()
        self._inbox.end()
        self._eventful.set()
        if self._task is not asyncio.current_task():
            self._cancel_task()
        if link is not None and hang_up:
            link.close()

    def _cancel_task(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()


def _split(address: str, port: int) -> tuple[str, int]:
    """Split host:port, [::1]:port or a host alone."""
    host, colon, number = address.rpartition(":")
    if not colon or not number.isdecimal():
        return address.strip("[]"), port
    return host.strip("[]"), int(number)
