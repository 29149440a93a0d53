"""The server under test as a process: started, signalled, killed and started again.

It is run as an operator runs it, with flags and `PUSHD_*` settings; nothing is imported from it.
`server(limits_heartbeat_min=1)` sets `PUSHD_LIMITS_HEARTBEAT_MIN=1`. The data directory
outlives the process, so `kill` and `start` show what a crash leaves.
"""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .nursery import PUSHD, Forked, Nursery
from .wire import Address, Dialer, HasAddress

# How long a start or a stop may take, in seconds.
START_PATIENCE = 30.0
STOP_PATIENCE = 15.0

# What makes a test server quick: cheap hashes, and no budgets for the one address there is.
QUICK = {"auth_bcrypt_cost": "4", "limits_per_address": "false"}


def variable(setting: str) -> str:
    """Return the environment variable of a setting such as `limits_login_idle`."""
    return f"PUSHD_{setting.upper()}"


def literal(value: object) -> str:
    """Return a setting's value as the environment holds it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


class Remote(HasAddress):
    """A server that somebody else runs: it can be dialled and nothing more."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.address = (host.strip("[]"), int(port))


class Process(HasAddress):
    """A `pushd` of our own on a free port of the loopback."""

    def __init__(self, folder: Path, loop: str = "uvloop", **settings: object) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "log"
        self.loop = loop
        self.settings: dict[str, object] = {**QUICK, **settings}
        self.address = ("127.0.0.1", 0)
        self.addresses = [self.address]  # all that it listens on, those for TLS last
        self.dial = Dialer(self)
        self.process: subprocess.Popen[bytes] | Forked | None = None
        self.nursery: Nursery | None = None  # forks it, instead of a start from nothing

    def start(self) -> None:
        """Start on the data of last time, if any; return when it listens.

        Raises: RuntimeError with the log's end when it does not come up.
        """
        ports = self.folder / "ports"
        ports.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = self._spawn(self._command(ports), log)
        deadline = time.monotonic() + START_PATIENCE
        while time.monotonic() < deadline:
            if ports.exists() and ports.read_text().endswith("\n"):
                self.addresses = _addresses(ports.read_text())
                self.address = self.addresses[0]
                return
            if self._ended_within(0.01):
                break
        self.kill()
        raise RuntimeError(f"pushd did not come up:\n{self.log_text()[-4000:]}")

    def _spawn(self, command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes] | Forked:
        size = len(PUSHD)
        if self.nursery and tuple(command[:size]) == PUSHD and not self.descriptors:
            return self.nursery.fork(command[size:], self._environment(), log)
        return subprocess.Popen(
            command, env=self._environment(), stdout=log, stderr=log, pass_fds=self.descriptors
        )

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What the process inherits beside its output."""
        return ()

    def _command(self, ports: Path) -> list[str]:
        flags = {
            "--listen": "127.0.0.1:0",
            "--data": str(self.data),
            "--ports-file": str(ports),
            "--loop": self.loop,
        }
        options = [word for pair in flags.items() for word in pair]
        return [*PUSHD, *options]

    def _environment(self) -> dict[str, str]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("PUSHD_")
        }
        ours = {variable(name): literal(value) for name, value in self.settings.items()}
        return {**inherited, **ours}

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self.process is not None and self.process.poll() is None

    def _ended_within(self, seconds: float) -> bool:
        assert self.process is not None
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal and do not wait."""
        assert self.process is not None
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait for the end and return the exit code, without holding up the loop."""
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait, STOP_PATIENCE)

    def kill(self) -> None:
        """End it at once, as a crash does; harmless when it has ended."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(STOP_PATIENCE)

    def restart(self) -> None:
        """Kill it and start it on the same data; the port changes."""
        self.kill()
        self.start()

    def stop(self) -> int:
        """Stop it as an operator does and return the exit code."""
        assert self.process is not None
        if self.running:
            self.signal()
        try:
            return self.process.wait(STOP_PATIENCE)
        finally:
            self.kill()

    def log_text(self) -> str:
        """Return everything it has logged."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def assert_no_traceback(self) -> None:
        """Require that nothing unforeseen was logged."""
        logged = self.log_text()
        at = logged.find("Traceback")
        assert at < 0, f"a traceback in the log: {logged[max(0, at - 500) : at + 3000]}"


@contextmanager
def running(folder: Path, **settings: object) -> Iterator[Process]:
    """Run a server; at the end it must stop as an operator stops it, and leave no traceback."""
    process = Process(folder, **settings)
    try:
        process.start()
        yield process
        process.dial.close()
        assert process.stop() == 0
        process.assert_no_traceback()
    finally:
        process.dial.close()
        process.kill()


# What the fixture `server` is: settings by keyword, and `loop`.
StartServer = Callable[..., Process]


def _addresses(ports: str) -> list[Address]:
    found = [line.strip().rpartition(":") for line in ports.splitlines()]
    return [(host.strip("[]"), int(port)) for host, _, port in found]
