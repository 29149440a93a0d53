"""Fill the disk of a server again and again, by messages, by files and by a log that cannot shrink.

    python -m tests.disk.fulldisk --rounds 20

The data folder is a tmpfs of 24 MiB. Each round ballast leaves little room; then it is filled by
one of the three until 4007 comes. While it is full people send heartbeats, read, ack, log in and
out, and are refused what needs space; every fourth time the server is killed and started on the
full disk. Then the ballast goes, and the server must accept again within 5 s without a restart.
At the end every confirmed message has arrived once and in order, and the store is whole.

Beside these rounds `exhausted` uses a small reserve up, and kills and starts the server on a disk
without a byte: devices that are known must still get in and read.
"""

import argparse
import asyncio
import base64
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conformance.process import Process
from tests.conformance.wire import Wire, content, text
from tests.disk.attempts import patient
from tests.disk.images import broken_rules, wrong_files
from tests.model.record import conclude

SIZE = 24 << 20
ROOM = 200 << 10  # left free at the beginning of a round
# Larger than the log gets here: what a reader keeps in the log cannot be used for anything else.
RESERVE = 2 << 20
SMALL = 64 << 10  # the reserve that is used up
LIST = 50  # messages in a list that fill what `load` leaves: more acks than that reserve takes
KINDS = ("messages", "files", "log")
FULL = 4007
PATIENCE = 5.0  # seconds until it accepts again
KILL_EVERY = 4  # rounds
BEATS = 40  # heartbeats while it is full


@contextmanager
def small_disk(folder: Path, size: int = SIZE) -> Iterator[None]:
    """Put a small disk in the place of a folder; raises OSError where that is not allowed."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        raise OSError("needs the right to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@dataclass
class Totals:
    """What all rounds came to."""

    rounds: int = 0
    confirmed: int = 0
    files: int = 0
    refused: int = 0
    restarts: int = 0
    waits: list[float] = field(default_factory=list)  # until it accepts again
    idle: list[float] = field(default_factory=list)  # heartbeats with space, in seconds
    full: list[float] = field(default_factory=list)  # while it is full
    violations: list[str] = field(default_factory=list)


class Filler:
    """A server on a small disk, a sender and a receiver."""

    def __init__(self, folder: Path, seed: int, totals: Totals) -> None:
        self.own = Process(folder, store_reserve=RESERVE, store_checkpoint_pages=100)
        self.totals = totals
        self._random = random.Random(seed)
        self._ballast = self.own.data / "ballast"
        self._waiting: list[str] = []  # texts confirmed in this round
        self._got: list[str] = []  # of them, what has arrived and was acked
        self._count = 0
        self.a: Wire
        self.b: Wire

    async def set_up(self) -> None:
        """Start the server and make the pair."""
        await asyncio.to_thread(self.own.start)
        self.a, self.b = await self.own.dial.pair()

    async def round(self, number: int) -> None:
        """Fill the disk, live with it, and free it."""
        kind = KINDS[number % len(KINDS)]
        self.totals.idle += await self._beats()
        load(self._ballast)
        if kind == "files":
            await self._fill_by_files()
            await self._fill_by_messages()
        elif kind == "log":
            with closing(sqlite3.connect(self.own.data / "pushd.db", isolation_level=None)) as db:
                db.execute("BEGIN")
                db.execute("SELECT count(*) FROM message").fetchone()
                await self._fill_by_messages()
        else:
            await self._fill_by_messages()
        self.totals.full += await self._beats()
        await self._works_while_full()
        if number % KILL_EVERY == KILL_EVERY - 1:
            await self._kill()
        self._ballast.unlink()
        await self._accepts_again()
        await self._take_in()
        self.totals.rounds += 1

    async def _beats(self) -> list[float]:
        found = []
        for _ in range(BEATS):
            began = time.monotonic()
            await self.a.heartbeat()
            found.append(time.monotonic() - began)
        return found

    def _texts(self, count: int) -> list[str]:
        self._count += 1
        return [f"{self._count} {number} " + "x" * 4000 for number in range(count)]

    async def _send(self, count: int) -> int:
        words = self._texts(count)
        reply = await self.a.send([text(self.b.user_id, each) for each in words])
        status = int(reply["status"])
        if status == 1:
            self._waiting += words
            self.totals.confirmed += count
        elif status == FULL:
            self.totals.refused += count
        else:
            self.totals.violations.append(f"a message was answered {reply}")
        return status

    async def _fill_by_messages(self) -> None:
        while await self._send(10) == 1:
            pass

    async def _fill_by_files(self) -> None:
        while True:
            data = self._random.randbytes(50_000)
            encoded = base64.b64encode(data).decode()
            reply = await self.a.command("save_file", name="x", content=encoded)
            if reply["status"] != 1:
                break
            self.totals.files += 1
        if reply["status"] != FULL:
            self.totals.violations.append(f"a file was answered {reply}")

    async def _works_while_full(self) -> None:
        """Read, ack, log in and out; each of these works, or says that the disk is full."""
        await self._must("history", self.a, userId=self.b.user_id, limit=3)
        await self._must("friends", self.b)
        await self.b.fence()
        if self.b.pushed:
            messages = (await self.b.packet())["message"]
            self._got += [content(message) for message in messages]
            await self.b.ack(messages[-1]["seq"])
            await self.b.fence()
        again = await self.own.dial()
        reply = await again.command("login", phone=self.a.phone, password=self.a.password)
        if reply["status"] != 1:
            self.totals.violations.append(f"while full, login: {reply}")
        reply = await again.command("logout")
        if reply["status"] != 1:
            self.totals.violations.append(f"while full, logout: {reply}")
        again.close()

    async def _must(self, cmd: str, wire: Wire, **fields: Any) -> None:
        reply = await wire.command(cmd, **fields)
        if reply["status"] != 1:
            self.totals.violations.append(f"while full, {cmd}: {reply}")

    async def _kill(self) -> None:
        """Kill the server and start it on the full disk; what was acked may come again."""
        push_ids = self.a.push_id, self.b.push_id
        await asyncio.to_thread(self.own.kill)
        try:
            await asyncio.to_thread(self.own.start)
        except RuntimeError as problem:
            self.totals.violations.append(f"it does not start on a full disk: {problem}")
            raise
        self.totals.restarts += 1
        phone, password = self.a.phone, self.a.password
        self.a, _ = await self.own.dial.resume(push_ids[0])
        self.a.phone, self.a.password = phone, password
        self.b, reply = await self.own.dial.resume(push_ids[1])
        behind = len(self._waiting) - reply["queued"]
        if not 0 <= behind <= len(self._got):
            self.totals.violations.append(f"{behind} messages are missing after a kill")
        del self._got[behind:]

    async def _accepts_again(self) -> None:
        began = time.monotonic()
        while await self._send(1) != 1:
            if time.monotonic() > began + 4 * PATIENCE:
                break
            await asyncio.sleep(0.05)
        waited = time.monotonic() - began
        self.totals.waits.append(waited)
        if waited > PATIENCE:
            self.totals.violations.append(f"it accepted again after {waited:.1f} s")

    async def _take_in(self) -> None:
        """Have everything arrive that was confirmed, once and in order."""
        left = len(self._waiting) - len(self._got)
        self._got += [content(message) for message in await self.b.take(left)]
        await self.b.fence()
        if self._got != self._waiting:
            self.totals.violations.append("what came is not what was confirmed")
        self._got.clear()
        self._waiting.clear()


async def exhausted(folder: Path) -> list[str]:
    """Use a small reserve up behind a reader, kill, and start; gives what did not go on."""
    own = Process(folder, store_reserve=SMALL, store_checkpoint_pages=100)
    try:
        await asyncio.to_thread(own.start)
        a, b = await own.dial.pair()
        load(own.data / "ballast")
        with closing(sqlite3.connect(own.data / "pushd.db", isolation_level=None)) as db:
            db.execute("BEGIN")
            db.execute("SELECT count(*) FROM message").fetchone()
            sent = 0
            while (await a.send([text(b.user_id, "x")] * LIST))["status"] == 1:
                sent += LIST
            # The reader keeps every ack in the log, until no further one fits.
            if not await _no_ack_fits(b, sent):
                return ["the reserve was not used up"]
            await asyncio.to_thread(own.kill)
            await asyncio.to_thread(own.start)
            problems = []
            for one, other in ((a, b), (b, a)):
                again, _ = await own.dial.resume(one.push_id)
                reply = await again.command("history", userId=other.user_id, limit=3)
                if reply["status"] != 1 or len(reply["result"]) != 3:
                    problems.append(f"without a byte left, history: {reply}")
        return problems
    except (AssertionError, RuntimeError, OSError, EOFError) as problem:
        return [f"without a byte left, {type(problem).__name__}: {problem}"]
    finally:
        own.dial.close()
        own.kill()


async def _no_ack_fits(wire: Wire, waiting: int) -> bool:
    """Ack one message after the other until the server says that it cannot be kept."""
    while waiting > 0:
        for message in (await wire.packet())["message"]:
            waiting -= 1
            await wire.ack(message["seq"])
            if (await wire.command("friends"))["status"] == FULL:
                return True
    return False


def load(ballast: Path) -> None:
    """Fill the disk up to a little room."""
    free = shutil.disk_usage(ballast.parent).free
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(4096, free - ROOM))


async def fill(rounds: int, seed: int) -> Totals:
    """Run the rounds; raises OSError where no disk can be mounted."""
    totals = Totals()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with small_disk(folder / "data"):
            filler = Filler(folder, seed, totals)
            try:
                await filler.set_up()
                for number in range(rounds):
                    await filler.round(number)
                filler.own.dial.close()
                if await asyncio.to_thread(filler.own.stop) != 0:
                    totals.violations.append("it did not stop with 0")
                totals.violations += broken_rules(filler.own.data) + wrong_files(filler.own.data)
            except (AssertionError, RuntimeError, OSError, EOFError) as problem:
                totals.violations.append(f"{type(problem).__name__}: {problem}")
            finally:
                filler.own.kill()
            log = filler.own.log_text().splitlines()
    loud = [line for line in log if "level=error" in line or "level=critical" in line]
    if len(loud) > rounds + totals.restarts or not all("disk is full" in line for line in loud):
        strange = [line for line in loud if "disk is full" not in line]
        totals.violations.append(f"{len(loud)} lines for {rounds} causes, such as {strange[:1]}")
    return totals


def percentile(times: list[float], share: float) -> float:
    """Give a percentile, in milliseconds."""
    return round(1000 * sorted(times)[int(share * (len(times) - 1))], 1) if times else 0.0


def main() -> int:
    """Run from the command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.disk.fulldisk", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    patient()
    try:
        totals = asyncio.run(fill(options.rounds, options.seed))
        with tempfile.TemporaryDirectory() as name, small_disk(Path(name, "data")):
            totals.violations += asyncio.run(exhausted(Path(name)))
    except OSError as problem:
        parser.error(str(problem))
    figures = {
        "times full": totals.rounds,
        "killed and started while full": totals.restarts,
        "messages confirmed": totals.confirmed,
        "messages refused": totals.refused,
        "files saved": totals.files,
        "heartbeats p99, ms": percentile(totals.full, 0.99),
        "the same with space, ms": percentile(totals.idle, 0.99),
        "accepts again after, s (longest)": round(max(totals.waits, default=0.0), 2),
    }
    return conclude("fulldisk", figures, totals.violations)


if __name__ == "__main__":
    sys.exit(main())
