"""Servers that can be looked into, and some that are broken in one place.

A figure counts only where the variant that lacks what it shows was caught. A variant is the
server of the repository with something of it replaced before it starts, so it has all the rest.
"""

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

from tests.conformance.authority import descriptors
from tests.conformance.process import Process
from tests.conformance.scrape import METRICS, series

START = "\nfrom pushd.cli import pushd\npushd()\n"
PATIENCE = 20.0  # seconds for a line of the log

# No clientId is known: what is sent again is stored again.
FORGETFUL = """
from pushd.store.journal import Journal
Journal.knows = lambda *_: False
Journal.repeat = lambda *_: None
"""

# Nobody is closed for being silent.
PATIENT = """
from pushd.connection import Connection
Connection._deadline = lambda self: self._service.now() + 3600
"""

# No fault: two days have passed.
DAYS_LATER = """
from pushd.clock import Clock
wall = Clock.wall
Clock.wall = lambda self: wall(self) + 2 * 86_400_000
"""

# Passwords are hashed on the loop.
HASHING = """
from pushd import passwords
async def run(self, work, *args):
    return work(*args)
passwords.Hasher._run = run
"""

# What comes when no descriptor is left is tried again at once.
EAGER = """
from pushd import listeners
listeners.RESERVED_FILES = 0
listeners.Listeners._pause = lambda *_: None
"""


class Variant(Process):
    """A server that runs a piece of Python before it starts."""

    def __init__(self, folder: Path, program: str = "", **settings: object) -> None:
        super().__init__(folder, **settings)
        self.program = program

    def _command(self, ports: Path) -> list[str]:
        command = super()._command(ports)
        return [sys.executable, "-c", self.program + START, *command[3:]]


Kind = TypeVar("Kind", bound=Process)


@contextmanager
def serving(make: Callable[[Path], Kind], *, sound: bool = True) -> Iterator[Kind]:
    """Run a server in a folder of its own; a sound one leaves no traceback."""
    with TemporaryDirectory() as folder:
        server = make(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.dial.close()
            server.kill()
            if sound:
                assert "Traceback" not in server.log_text()


class Holdings(NamedTuple):
    """What a server holds."""

    memory: float  # bytes
    files: int
    tasks: int
    connections: int


class Watched(Variant):
    """A server that tells its metrics and what it is doing; `host` is what it listens on."""

    def __init__(
        self, folder: Path, program: str = "", host: str = "127.0.0.1", **settings: object
    ) -> None:
        told = {**METRICS, "log_rate": 0, "limits_friend_requests": 1_000_000, **settings}
        super().__init__(folder, program, **told)
        self.host = host

    def _command(self, ports: Path) -> list[str]:
        return [word.replace("127.0.0.1:0", f"{self.host}:0") for word in super()._command(ports)]

    def start(self) -> None:
        """Start; it is dialled on the loopback."""
        super().start()
        self.address = ("127.0.0.1", self.address[1])

    @property
    def pid(self) -> int:
        """The process's number."""
        assert self.process is not None
        return self.process.pid

    async def metrics(self) -> dict[str, float]:
        """Give all it tells to monitors."""
        return await series(self)

    async def holdings(self) -> Holdings:
        """Give what it holds now."""
        told = 'event="state: tasks"'
        before = self.log_text().count(told)
        self.signal(signal.SIGUSR1)
        deadline = time.monotonic() + PATIENCE
        while self.log_text().count(told) <= before:
            assert time.monotonic() < deadline, "USR1 shows nothing"
            await asyncio.sleep(0.02)
        line = [each for each in self.log_text().splitlines() if told in each][-1]
        counts = [word.partition("=")[2] for word in line.partition(told)[2].split()]
        tasks = sum(int(count) for count in counts if count.isdigit())
        found = await self.metrics()
        connections = sum(
            value for name, value in found.items() if name.startswith("pushd_connections{")
        )
        return Holdings(found["pushd_memory_bytes"], descriptors(self), tasks, int(connections))
