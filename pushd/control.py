"""The control socket: a Unix socket by which only this user and root may speak as an operator.

It speaks the same lines and the same table as any other connection. It is made with mode 0600,
and the kernel tells who is at the other end. A connection of it has no login and so no deadline,
counts in no budget, and is let in when `limits.connections` others are there.

`Running` is what its rows may ask of the server.
"""

import asyncio
import errno
import os
import socket
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import __version__, log, protocol
from .clock import Clock
from .connection import Connection
from .errors import Refusal
from .metrics import Sources, snapshot
from .model import Frame, StatsOut
from .session import Session, State
from .sockets import peer_process, short_name
from .status import Status
from .store.health import Census

HOUR = 3600.0


class ControlConnection(Connection):
    """The protocol of one operator."""

    __slots__ = ()

    operator = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; only root and the server's own user may."""
        super().connection_made(transport)
        _, user = peer_process(transport)
        if user not in (0, os.geteuid()):
            problem = Refusal(Status.NOT_ALLOWED, "only root and the server's user may do this")
            self._finish(protocol.error("", problem), "refused")

    def _deadline(self) -> float:
        # An operator may think for as long as they like.
        return self._service.now() + HOUR

    async def _run_gate(self, frame: Frame) -> None:
        self._gate = False
        problem = Refusal(Status.NOT_ALLOWED, "the control socket is no device")
        self._end_barrier(self._refusal(frame.id, problem))


class ControlSocket:
    """The socket in its place in the file system."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._made: tuple[int, int] | None = None  # device and inode of what was made here

    def open(self, backlog: int) -> socket.socket:
        """Make the socket; one that a dead server left is replaced.

        Raises: OSError with a text, also when a live server has it.
        """
        self._clear()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Before the bind: Linux gives the name the mode of the socket, so it never has another.
            os.fchmod(sock.fileno(), 0o600)
            with short_name(str(self.path)) as name:
                sock.bind(name)
            found = self.path.lstat()
            self._made = found.st_dev, found.st_ino
            sock.listen(backlog)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            self.remove()
            raise
        return sock

    def remove(self) -> None:
        """Remove the socket if it is still the one that was made; a second time does nothing."""
        made, self._made = self._made, None
        with suppress(OSError):
            found = self.path.lstat()
            if (found.st_dev, found.st_ino) == made:
                self.path.unlink()

    def _clear(self) -> None:
        """Remove the socket of a dead server."""
        try:
            mode = self.path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise FileExistsError(errno.EEXIST, "it is there and is no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                with short_name(str(self.path)) as name:
                    probe.connect(name)
            except (ConnectionRefusedError, FileNotFoundError):
                self.path.unlink(missing_ok=True)
                return
        raise OSError(errno.EADDRINUSE, "another server listens there")


class Running:
    """The running server, as the operator's rows see it."""

    def __init__(self, sources: Sources, clock: Clock, stop: Callable[[], None]) -> None:
        self._sources = sources
        self._service = sources.service
        self._clock = clock
        self._began = clock.now()
        self._began_at = clock.wall()
        self.stop = stop  # shuts the server down, in order

    def stats(self) -> StatsOut:
        """Give the counters, without those of the store."""
        service, stats, hub = self._service, self._service.stats, self._service.ctx.hub
        sessions = list(self.connections())
        return StatsOut(
            version=__version__,
            pid=os.getpid(),
            loop=service.ctx.config.server.loop,
            started_at=service.ctx.dates.text(self._began_at),
            uptime=int(self._clock.now() - self._began),
            connections=len(sessions) - service.operators,
            operators=service.operators,
            sessions=sum(1 for session in sessions if session.actor is not None),
            online=len(hub),
            accepted=stats.accepted,
            frames=stats.frames,
            delivered=stats.delivered,
            refusals={str(int(status)): n for status, n in sorted(stats.refusals.items())},
        )

    def connections(self) -> Iterator[Session]:
        """Give the sessions of all connections, in no order."""
        for peer in self._service.connections:
            # One that has got its last frame and only drains is gone.
            if peer.session.state is not State.ENDED:
                yield peer.session

    def facts(self, session: Session) -> tuple[float, int]:
        """Give for how many seconds a connection is there, and how many bytes wait for it."""
        opened, waiting = session.link.facts()
        return self._clock.now() - opened, waiting

    def sent(self, devices: Collection[int], message: int) -> dict[int, tuple[int, int]]:
        """Give when a message was first written to these devices (ms), and how often."""
        found: dict[int, tuple[int, int]] = {}
        for device, first, last, at in self._service.sent:
            if first <= message <= last and device in devices:
                when, times = found.get(device, (at, 0))
                found[device] = when, times + 1
        return found

    def metrics(self) -> dict[str, Any]:
        """Give what the server tells of itself, by the names of the metrics."""
        return snapshot(self._sources)

    async def census(self) -> Census:
        """Give what waits in the store, as it was a few seconds ago at most."""
        await self._sources.health.refresh()
        return self._sources.health.census

    def log_level(self, level: str = "") -> str:
        """Change the level of the log, if one is given; gives the one that holds."""
        if level:
            log.set_level(level)
            self._service.tracing = level == "debug"
        return log.level()
