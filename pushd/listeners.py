"""Listening, accepting, and the handshakes of those who have been accepted.

Accepting is done here and not by the loops, because neither of theirs survives a shortage of
descriptors: uvloop accepts and at once closes everybody who waits, asyncio tries again for each
place of the backlog and logs each time. Here:

- No one is accepted beyond the descriptors that clients may take; the rest is for the store. Who
  comes then waits in the kernel's line, and those who are there notice nothing.
- A paused listener looks four times a second whether there is room again. One line of the log says
  that it is paused, at most once a minute.
- A turn accepts a bounded number, so that a flood of connects leaves the others their turns.

A TLS handshake counts as a connection of its address from its first byte on, and ends within
`tls.handshake_seconds`, whatever the peer sends.
"""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import structlog

from .config import parse_address
from .connection import Connection
from .service import Service
from .sockets import bound, plain_host, text_of

log = structlog.get_logger("pushd.listeners")

# Connections that are accepted before others have their turn.
ACCEPTS_A_TURN = 64
# Seconds until a paused listener looks again, and between two lines of the log about it.
LOOK_AGAIN = 0.25
SAY_AGAIN = 60.0
# Descriptors that stay for the store when clients take all they can get.
RESERVED_FILES = 64
# What the kernel says when it has no descriptor or no memory for another connection.
SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
# Seconds that a peer has to answer the goodbye of TLS.
TLS_GOODBYE = 1.0

# Takes an accepted socket and its peer's address.
Welcome = Callable[[socket.socket, str], None]


class ListenError(Exception):
    """An address cannot be listened on, or not told; the text says which and why."""


class Listeners:
    """All listening sockets for clients."""

    def __init__(self, service: Service, *, files: int) -> None:
        self.addresses: list[str] = []  # what is listened on, with real ports
        self.context: ssl.SSLContext | None = None  # of the next handshake
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._most = 0  # descriptors that clients may take
        self.allow(files)
        self._sockets: list[tuple[socket.socket, Welcome]] = []
        self._beginning: set[asyncio.Task[None]] = set()  # accepted, and no connection yet
        # Of these, who is in a handshake. Once a connection was made its beginning is never
        # cancelled: uvloop would close the transport and tell nobody.
        self._shaking: set[asyncio.Task[None]] = set()
        self._resuming: asyncio.TimerHandle | None = None  # accepting is paused until then
        self._said = float("-inf")  # when the log was told of a shortage

    def allow(self, files: int) -> None:
        """Use so many descriptors in all from now on."""
        # Half of them where there are next to none: a server without clients is of no use.
        self._most = max(files - RESERVED_FILES, files // 2)

    # --- opening and closing --------------------------------------------------------------

    async def listen(self, text: str, *, tls: bool = False) -> None:
        """Listen on an address; raises ListenError."""
        host, port = parse_address(text)
        try:
            sockets = await bound(host, port)
        except OSError as problem:
            why = problem.strerror or problem
            raise ListenError(f"{text}: cannot listen: {why}") from None
        for sock in sockets:
            self.adopt(sock, tls=tls)

    def adopt(self, sock: socket.socket, *, tls: bool = False) -> None:
        """Accept on a socket that is bound already, or inherited."""
        # The whole line again: who passed the socket may have asked for a short one.
        sock.listen(self._service.ctx.config.server.backlog)
        sock.setblocking(False)
        welcome = self._shake_hands if tls else self._greet
        self._sockets.append((sock, welcome))
        self.addresses.append(text_of(sock.getsockname()))
        self._loop.add_reader(sock.fileno(), partial(self._accept, sock, welcome))

    def close(self) -> None:
        """Accept nobody any more, and drop who is in a handshake; idempotent."""
        if self._resuming is not None:
            self._resuming.cancel()
        for sock, _ in self._sockets:
            self._loop.remove_reader(sock.fileno())
            sock.close()
        self._sockets.clear()
        for task in tuple(self._shaking):
            task.cancel()

    # --- accepting ------------------------------------------------------------------------

    @property
    def _full(self) -> bool:
        return len(self._service.connections) + len(self._beginning) >= self._most

    def _accept(self, listener: socket.socket, welcome: Welcome) -> None:
        for _ in range(ACCEPTS_A_TURN):
            if self._full:
                self._pause("no descriptor is left for clients")
                return
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as problem:
                if problem.errno in SHORTAGES:
                    self._pause(os.strerror(problem.errno))
                    return
                # That client has gone again; the next one may be fine.
                continue
            sock.setblocking(False)
            welcome(sock, _host_of(address))

    def _pause(self, why: str) -> None:
        """Stop accepting on all listeners until there is room."""
        now = self._service.now()
        if now >= self._said + SAY_AGAIN:
            log.warning(
                "no more connections are accepted for now: raise the limit of open files",
                problem=why,
                connections=len(self._service.connections),
            )
        self._said = now
        if self._resuming is not None:
            return
        for sock, _ in self._sockets:
            self._loop.remove_reader(sock.fileno())
        self._resuming = self._loop.call_later(LOOK_AGAIN, self._resume)

    def _resume(self) -> None:
        if self._full:
            self._resuming = self._loop.call_later(LOOK_AGAIN, self._resume)
            return
        self._resuming = None
        for sock, welcome in self._sockets:
            self._loop.add_reader(sock.fileno(), partial(self._accept, sock, welcome))

    # --- beginning ------------------------------------------------------------------------

    def _greet(self, sock: socket.socket, address: str) -> None:
        self._begin(self._connect(sock, lambda: Connection(self._service)))

    def _shake_hands(self, sock: socket.socket, address: str) -> None:
        place = self._service.reserve(address)
        if place is None:
            # Over a limit. There is nothing that could be said before the handshake.
            sock.close()
            return
        self._begin(self._secure(sock, place))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    async def _secure(self, sock: socket.socket, place: Callable[[], None]) -> None:
        config = self._service.ctx.config
        task = asyncio.current_task()
        assert task is not None, "every beginning is a task"
        self._shaking.add(task)

        def made() -> None:
            self._shaking.discard(task)
            place()

        try:
            await self._connect(
                sock,
                lambda: _Secured(self._service, made),
                ssl=self.context,
                ssl_handshake_timeout=config.tls.handshake_seconds,
                ssl_shutdown_timeout=TLS_GOODBYE,
            )
        finally:
            made()

    async def _connect(
        self, sock: socket.socket, factory: Callable[[], Connection], **options: Any
    ) -> None:
        try:
            await self._loop.connect_accepted_socket(factory, sock, **options)
        except OSError as problem:
            # A handshake that failed, or a peer that has gone. Noise from the internet, no error.
            sock.close()
            if "ssl" in options:
                self._service.stats.failed_handshakes += 1
            log.debug("a connection did not begin", problem=str(problem))


class _Secured(Connection):
    """A connection over TLS, where an end of reading cannot be answered: half-close is not kept."""

    __slots__ = ("_place",)

    def __init__(self, service: Service, place: Callable[[], None]) -> None:
        super().__init__(service)
        self._place = place  # gives back what the handshake was counted for

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin once the handshake is done."""
        self._place()
        super().connection_made(transport)

    def eof_received(self) -> bool:
        """Answer what can be answered at once; the transport closes by itself."""
        super().eof_received()
        return False


def _host_of(address: Any) -> str:
    return plain_host(address[0]) if isinstance(address, tuple) else "local"
