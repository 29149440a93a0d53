"""What systemd and a service tell each other: inherited sockets, state, a sign of life.

Messages are datagrams to the socket that systemd named, a path or an abstract one ("@…"). They are
never waited for: one that cannot be sent is dropped, since a supervisor that does not listen is no
reason to stop. Without systemd nothing is named and nothing is sent.

Inherited sockets have names (`FileDescriptorName=`), and the names decide what is spoken there.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass

import structlog

log = structlog.get_logger("pushd.systemd")

FIRST = 3  # the number of the first inherited descriptor
MOST = 64  # such descriptors; more is a mistake
NAMES = ("tcp", "tls", "control", "metrics")
# How much more time is asked for, and how often, in seconds; and for how long in all.
EXTENSION, EXTEND_EVERY, EXTEND_TOTAL = 30.0, 10.0, 3600.0


class SocketError(Exception):
    """An inherited socket cannot be used; the text says which and why."""


@dataclass(frozen=True)
class Told:
    """What the supervisor said at the start."""

    notify: str = ""  # the address of its socket
    watchdog: float = 0.0  # seconds between two signs of life, 0 when it waits for none
    names: tuple[str, ...] = ()  # of the inherited descriptors


def told(environ: Mapping[str, str], pid: int) -> Told:
    """Read what the supervisor said to the process `pid`; what was said to another is not ours."""
    count = _number(environ.get("LISTEN_FDS", "")) if _for(environ, "LISTEN_PID", pid) else 0
    names = [name for name in environ.get("LISTEN_FDNAMES", "").split(":") if name]
    # A lone socket without a name, as systemd-socket-activate passes it, is the plain listener.
    if not names and count == 1:
        names = ["tcp"]
    names += ["unknown"] * count
    micros = _number(environ.get("WATCHDOG_USEC", ""))
    # Without WATCHDOG_PID it is meant for whoever reads it.
    ours = "WATCHDOG_PID" not in environ or _for(environ, "WATCHDOG_PID", pid)
    return Told(
        notify=environ.get("NOTIFY_SOCKET", ""),
        watchdog=micros / 1e6 if ours else 0.0,
        names=tuple(names[: min(count, MOST)]),
    )


def inherited(names: tuple[str, ...]) -> dict[str, list[socket.socket]]:
    """Take the inherited sockets, by name.

    Raises: SocketError for one whose name or kind is none of ours.
    """
    found: dict[str, list[socket.socket]] = {}
    for number, name in enumerate(names, start=FIRST):
        if name not in NAMES:
            known = ", ".join(NAMES)
            raise SocketError(f"FileDescriptorName={name}: an inherited socket is one of {known}")
        try:
            sock = socket.socket(fileno=number)
        except OSError as problem:
            raise SocketError(f"descriptor {number}, {name}: {problem.strerror}") from None
        sock.set_inheritable(False)
        sock.setblocking(False)
        if sock.type != socket.SOCK_STREAM or not _listens(sock):
            raise SocketError(f"descriptor {number}, {name}: is no listening stream socket")
        found.setdefault(name, []).append(sock)
    return found


class Notifier:
    """Tells the supervisor how the service is."""

    def __init__(self, address: str = "") -> None:
        # "@" stands for the NUL byte of an abstract address.
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def send(self, **state: object) -> None:
        """Send assignments such as READY=1, all in one message; never waits and never raises."""
        if not self._address:
            return
        lines = "\n".join(
            f"{name}={str(value).replace(chr(10), ' ')}" for name, value in state.items()
        )
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(lines.encode(), self._address)
        except OSError as problem:
            log.debug("the supervisor was not told", problem=str(problem))

    def extend(self, seconds: float) -> None:
        """Ask for at least so much time from now on for what is under way."""
        self.send(EXTEND_TIMEOUT_USEC=int(seconds * 1e6))

    def reloading(self) -> None:
        """Say that a reload begins; READY=1 says that it has ended."""
        self.send(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)

    @contextlib.contextmanager
    def patience(self, status: str) -> Iterator[None]:
        """Ask for more time as long as the body runs, for an hour at most."""
        self.send(STATUS=status)
        task = asyncio.get_running_loop().create_task(self._ask_for_time())
        try:
            yield
        finally:
            task.cancel()

    async def _ask_for_time(self) -> None:
        for _ in range(int(EXTEND_TOTAL / EXTEND_EVERY)):
            self.extend(EXTENSION)
            await asyncio.sleep(EXTEND_EVERY)

    async def keep_alive(
        self, seconds: float, probe: Callable[[], Awaitable[None]], status: Callable[[], str]
    ) -> None:
        """Give a sign of life four times in `seconds`, each after a probe that has come back.

        Whoever blocks the loop or the probe stops the signs, and is ended by the supervisor.
        """
        while True:
            await probe()
            self.send(WATCHDOG=1, STATUS=status())
            await asyncio.sleep(seconds / 4)


def _for(environ: Mapping[str, str], name: str, pid: int) -> bool:
    return environ.get(name, "") == str(pid)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else 0


def _listens(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
