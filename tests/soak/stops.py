"""Stop, upgrade and freeze a server under load, and see that nothing is lost.

    python -m tests.soak.stops --stops 200

Phones write to each other without pause while the server gets a SIGTERM and is started again, now
and then with one more SIGTERM during the start: each time it ends within 10 s and with exit code
0. Then a store of the schema before is taken over by this version while its clients come back, and
a server that stood still for a minute goes on, which its supervisor can tell from its silence.
What the phones saw is held against `tests.model.checker`. Exit code 1 if there is a violation.
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.conformance.operated import Operated
from tests.model.record import ROOT, record
from tests.soak.phones import Hole
from tests.soak.soak import Plan, Soak

STOP_SECONDS = 10.0
LIFE = (0.1, 0.8)  # seconds between two stops
START_LIFE = (0.0, 0.6)
STOP_STARTS = 7  # every so many rounds one start is stopped
JUDGE = 10  # every so many rounds
WATCHDOG = 0.5  # seconds in which a supervisor wants a sign of life

OLD = """
import sys
sys.path.insert(0, {folder!r})
from pushd.cli import pushd
pushd(prog_name="pushd")
"""


class Stops(Soak):
    """Phones under load, and a server that something is done to."""

    def __init__(self, folder: Path, phones: int, rate: float, seed: int, **settings: object):
        super().__init__(folder, Plan(3600.0, phones, rate), seed, **settings)
        for phone in self._phones:
            phone.backoff = 0.1

    def _works(self) -> list[Any]:
        return [self._talk(), self._tick()]

    async def back(self) -> None:
        """Wait until most phones are back, under load."""
        most = 0.9 * len(self._phones)
        await self._until(lambda: sum(one.online for one in self._phones) >= most, "not back")

    async def settle(self) -> None:
        """Judge what was seen so far."""
        async with self._staged:
            await self._judge()


class Terminated(Stops):
    """The server is stopped in order, again and again."""

    def __init__(self, folder: Path, stops: int, phones: int, rate: float, seed: int):
        super().__init__(folder, phones, rate, seed)
        self.stops = stops
        self.done = 0
        self.took: list[float] = []  # seconds of each stop
        self.stopped_starts = 0

    async def _course(self) -> None:
        for number in range(1, self.stops + 1):
            await asyncio.sleep(self._random.uniform(*LIFE))
            await self._terminate()
            if number % STOP_STARTS == 0:
                await self._stop_a_start()
            await asyncio.to_thread(self.server.start)
            await self.back()
            if number % JUDGE == 0:
                await self.settle()

    async def _terminate(self) -> None:
        began = time.monotonic()
        self.server.signal(signal.SIGTERM)
        code = await self.server.ended()
        self._ended(code, time.monotonic() - began)

    def _ended(self, code: int, seconds: float) -> None:
        self.done += 1
        self.took.append(seconds)
        if code or seconds > STOP_SECONDS:
            self.totals.report.violations.append(f"stop: exit {code} after {seconds:.1f} s")

    async def _stop_a_start(self) -> None:
        process = self.server.spawn()
        await asyncio.sleep(self._random.uniform(*START_LIFE))
        # Before it reads its settings a signal ends it as it ends any program.
        early = "starting" not in self._last_line()
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(process.wait, STOP_SECONDS + 5)
        self.stopped_starts += 1
        if not (early and code == -signal.SIGTERM):
            self._ended(code, time.monotonic() - began)

    def _last_line(self) -> str:
        lines = self.server.log_text().splitlines()
        return lines[-1] if lines else ""


class Upgraded(Stops):
    """A store of the schema before is taken over under the load of its clients."""

    def __init__(self, folder: Path, old: Path, seed: int, phones: int = 40):
        super().__init__(folder, phones, 300.0, seed)
        self._new = self.server
        self.before = self.after = 0  # versions of the schema
        # An older version knows fewer settings.
        program = OLD.format(folder=str(old))
        self.server = Operated(folder, "", program=program, log_format="logfmt")

    async def _course(self) -> None:
        await asyncio.sleep(2.0)
        self.server.kill()
        self.before = self._schema()
        self.server = self._new
        await asyncio.to_thread(self.server.start)
        await self.back()
        self.after = self._schema()
        await asyncio.sleep(1.0)

    def _schema(self) -> int:
        with contextlib.closing(sqlite3.connect(self.server.data / "pushd.db")) as db:
            found: int = db.execute("PRAGMA user_version").fetchone()[0]
        return found


class Frozen(Stops):
    """The server stands still for a while, as a virtual machine does."""

    def __init__(self, folder: Path, seconds: float, seed: int, phones: int = 40):
        super().__init__(folder, phones, 300.0, seed)
        self.seconds = seconds
        self.silent = 0.0  # seconds without a sign of life
        for phone in self._phones:
            phone.patience += seconds
        self.server = Watched(folder, "", log_format="logfmt")

    async def _course(self) -> None:
        watched = self.server
        assert isinstance(watched, Watched)
        await asyncio.sleep(1.0)
        watched.signs()
        watched.signal(signal.SIGSTOP)
        began = time.monotonic()
        await asyncio.sleep(0.2)
        watched.signs()  # what was under way
        await asyncio.sleep(self.seconds)
        if watched.signs():
            self.totals.report.violations.append("watchdog: a sign of life of a frozen server")
        self.silent = time.monotonic() - began
        watched.signal(signal.SIGCONT)
        await self._until(lambda: watched.signs() > 0, "no sign of life after SIGCONT")
        await self.back()
        await asyncio.sleep(0.5)


class Watched(Operated):
    """A server with a supervisor that wants signs of life."""

    def __init__(self, folder: Path, text: str = "", **settings: object) -> None:
        super().__init__(folder, text, **settings)  # type: ignore[arg-type]
        self._address = f"\0pushd-watch-{os.getpid()}-{time.monotonic_ns()}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._address)
        self._socket.setblocking(False)

    def signs(self) -> int:
        """Count the signs of life since the last call."""
        count = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                count += b"WATCHDOG=1" in self._socket.recv(4096)
        return count

    def kill(self) -> None:
        super().kill()
        self._socket.close()

    def _environment(self) -> dict[str, str]:
        supervised = {
            "NOTIFY_SOCKET": self._address.replace("\0", "@"),
            "WATCHDOG_USEC": str(int(WATCHDOG * 1e6)),
        }
        return {**super()._environment(), **supervised}


async def run(course: Stops) -> list[str]:
    """Run one of them; gives the violations."""
    try:
        await course.set_up()
        try:
            await course.run()
        except (Hole, AssertionError, TimeoutError, ConnectionError, RuntimeError) as problem:
            course.totals.report.violations.append(f"hole: {problem!r}")
        await course.end()
    finally:
        course.close()
    return course.totals.report.violations


def version_before(folder: Path) -> Path | None:
    """Unpack the newest version whose schema was an earlier one; None where there is no history."""
    schema = "pushd/schema"
    newest = len(list((ROOT / schema).glob("*.sql")))
    commits = _git("log", "--format=%H", "--", schema).split()
    for commit in commits:
        found = _git("ls-tree", "--name-only", commit, f"{schema}/").splitlines()
        if 0 < len(found) < newest:
            archive = folder / "before.tar"
            _git("archive", "--output", str(archive), commit, "pushd")
            subprocess.run(["tar", "-xf", str(archive), "-C", str(folder)], check=True)
            return folder
    return None


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


Found = tuple[dict[str, Any], list[str]]


async def stopped(stops: int, seed: int) -> Found:
    """Stop it again and again; gives figures and violations."""
    with tempfile.TemporaryDirectory() as folder:
        course = Terminated(Path(folder), stops, 40, 300.0, seed)
        violations = await run(course)
    report, took = course.totals.report, sorted(course.took) or [0.0]
    figures = {
        "SIGTERMs": f"{course.done}, {course.stopped_starts} during a start",
        "stop": f"{took[len(took) // 2]:.2f} s median, {took[-1]:.2f} s longest",
        "confirmed messages": report.confirmed,
        "delivered": f"{report.delivered}, {report.redelivered} of them again",
    }
    return figures, violations


async def upgraded(seed: int) -> Found:
    """Take over a store of the version before."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as old:
        before = version_before(Path(old))
        if before is None:
            return {"upgrade": "skipped: needs the history of the project (git)"}, []
        course = Upgraded(Path(folder), before, seed)
        violations = await run(course)
    if course.before >= course.after:
        violations.append(f"upgrade: from {course.before} to {course.after}")
    confirmed = course.totals.report.confirmed
    return {"upgrade": f"{course.before} to {course.after}, {confirmed} messages"}, violations


async def frozen(seconds: float, seed: int) -> Found:
    """Have it stand still."""
    with tempfile.TemporaryDirectory() as folder:
        course = Frozen(Path(folder), seconds, seed)
        violations = await run(course)
    confirmed = course.totals.report.confirmed
    return {"frozen": f"{course.silent:.1f} s, {confirmed} messages"}, violations


def main() -> int:
    """Run from the command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.stops", description=__doc__)
    parser.add_argument("--stops", type=int, default=200)
    parser.add_argument("--frozen", type=float, default=60.0, help="seconds")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    print(f"seed                    {options.seed}", flush=True)
    figures: dict[str, Any] = {}
    violations: list[str] = []
    for course in (
        stopped(options.stops, options.seed),
        upgraded(options.seed),
        frozen(options.frozen, options.seed),
    ):
        found, wrong = asyncio.run(course)
        print("\n".join(f"{name:<24}{value}" for name, value in found.items()), flush=True)
        figures |= found
        violations += wrong
    figures["load average"] = f"{os.getloadavg()[0]:.1f}"
    record("stops", figures, violations)
    print("\n".join([f"violations              {len(violations)}", *violations[:20]]))
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
