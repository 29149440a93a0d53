"""The server under load: a process of its own, on a core of its own, with its data on a disk.

Nothing is imported from it. Settings are given by the names of their variables without the
prefix: `auth_bcrypt_cost=10` sets PUSHD_AUTH_BCRYPT_COST.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .load import Address

# Where the source is, so that what runs is what the report names.
ROOT = Path(__file__).resolve().parent.parent

# What can be measured: the sources, or the tree that `make compiled` makes of them.
TREES = {"source": ROOT, "compiled": ROOT / "build" / "compiled"}

# How long a start or a stop may take, in seconds.
PATIENCE = 30.0

LOG_MAX = 2000  # characters of the log's end, shown when something failed

# No budgets for the one address there is, and cheap hashes, since most runs do not measure them.
SETTINGS = {
    "auth_bcrypt_cost": "4",
    "limits_per_address": "false",
    "limits_friend_requests": "1000000",
    "log_level": "warning",
}


class ServerFailed(Exception):
    """The server did not start or did not stop; the text says why."""


class Server:
    """A pushd whose data outlive its process, so that it can be started anew on the same."""

    def __init__(
        self,
        folder: Path,
        loop: str,
        cores: Sequence[int],
        *,
        tree: Path = ROOT,
        **settings: object,
    ) -> None:
        self.address: Address = ("127.0.0.1", 0)
        self._folder = folder
        self.data = folder / "data"
        self._saved = folder / "saved"
        self._loop = loop
        self._cores = cores
        self._tree = tree
        self._settings = {**SETTINGS, **settings}
        self._process: subprocess.Popen[bytes] | None = None  # while it should be running

    def __enter__(self) -> "Server":
        self._folder.mkdir()
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start on the data of last time, if any; return when it listens.

        Raises: ServerFailed.
        """
        ports = self._folder / "ports"
        ports.unlink(missing_ok=True)
        with (self._folder / "log").open("ab") as log:
            self._process = self._spawn(ports, log.fileno())
        try:
            self._wait_until_listening(ports)
        except BaseException:
            # Whatever ends us now, the server must not outlive us.
            self.kill()
            raise

    def stop(self) -> None:
        """Stop it as an operator does.

        Raises: ServerFailed when it hangs or its exit code is not 0.
        """
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerFailed("pushd did not stop") from None
        self._process = None
        if code:
            raise ServerFailed(f"pushd ended with exit code {code}")

    def save_data(self) -> None:
        """Keep the data as they are; the server must be stopped."""
        shutil.copytree(self.data, self._saved)

    def restore_data(self) -> None:
        """Go back to the saved data; the server must be stopped."""
        shutil.rmtree(self.data)
        shutil.copytree(self._saved, self.data)

    def kill(self) -> None:
        """End it at once; harmless when it has ended."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def log_end(self) -> str:
        """Return the end of its log, where warnings and errors are."""
        return (self._folder / "log").read_text(errors="replace")[-LOG_MAX:]

    def cpu(self) -> float:
        """Return the seconds of CPU it has used, those of threads that have ended included."""
        # The kernel's clock of another process, finer than the ticks of /proc/PID/stat; what
        # makes its number is clock_getcpuclockid(3), which Python does not offer.
        return time.clock_gettime((~self._pid << 3) | 2)

    def memory(self) -> int:
        """Return the KiB of memory it has resident."""
        for line in Path(f"/proc/{self._pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise ServerFailed("pushd has ended")

    @property
    def _pid(self) -> int:
        if self._process is None or self._process.poll() is not None:
            raise ServerFailed("pushd has ended")
        return self._process.pid

    def _wait_until_listening(self, ports: Path) -> None:
        end = time.monotonic() + PATIENCE
        while not ports.exists():
            if self._process is None or self._process.poll() is not None or time.monotonic() > end:
                raise ServerFailed(f"pushd did not start: {self.log_end()}")
            time.sleep(0.01)
        host, _, port = ports.read_text().splitlines()[0].rpartition(":")
        self.address = host, int(port)

    def _spawn(self, ports: Path, log: int) -> "subprocess.Popen[bytes]":
        flags = {
            "--listen": "127.0.0.1:0",
            "--data": str(self.data),
            "--ports-file": str(ports),
            "--loop": self._loop,
        }
        words = [word for flag in flags.items() for word in flag]
        ours = {f"PUSHD_{name.upper()}": str(value) for name, value in self._settings.items()}
        others = {name: value for name, value in os.environ.items() if name[:6] != "PUSHD_"}
        # The folder it is started in would win over any other tree.
        others |= {"PYTHONPATH": str(self._tree), "PYTHONSAFEPATH": "1"}
        mine = os.sched_getaffinity(0)
        # A child begins on its parent's cores, so it has run nowhere else, not for a moment.
        os.sched_setaffinity(0, self._cores)
        try:
            return subprocess.Popen(
                [sys.executable, "-m", "pushd", *words],
                env={**others, **ours},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        finally:
            os.sched_setaffinity(0, mine)


def split_cores() -> tuple[list[int], list[int]]:
    """Return the cores of the server and those of the load; one and the same if there is one."""
    first, *others = sorted(os.sched_getaffinity(0))
    return [first], others[:1] or [first]


def busy_seconds() -> float:
    """Return the seconds of CPU that the whole machine has spent, all cores together."""
    user, nice, system, _idle, _iowait, *interrupts = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def raise_file_limit() -> None:
    """Allow as many open files as the system lets us, here and in what is started from here."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
