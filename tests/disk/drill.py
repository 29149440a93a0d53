"""Back up a server that works, restore, and prove that the copy is of one instant; many times.

    python -m tests.disk.drill --times 50

People work all the time (`tests.disk.load`) while `pushctl backup` makes one archive after the
other. Each is restored into a new folder and held against the store as it is in the end: it has
all messages up to some msgId and none behind it, among them every one that was confirmed before
the backup began; each of their places in queues; every file whole. The restored store keeps all
rules that `pushctl check` knows, and has an epoch of its own. Exit code 1 if any of it is not so.

The control takes one message out of a restored store.
"""

import argparse
import asyncio
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from pushd.backup import restore
from pushd.clock import Clock
from tests.conformance.process import Process
from tests.disk.attempts import SCRATCH, patient
from tests.disk.images import broken_rules, wrong_files
from tests.disk.load import Company
from tests.model.record import conclude

STEPS = 10


@dataclass
class Kept:
    """What a store holds."""

    messages: dict[int, str]
    places: set[tuple[int, int, int]]  # in queues, that are not acked
    acked: dict[int, int]
    epoch: str


@dataclass
class Totals:
    """What all backups came to."""

    times: int = 0
    messages: int = 0
    least: int = 0  # messages that came while the backups were made
    violations: list[str] = field(default_factory=list)
    control: str = "NOT CAUGHT"


def kept(path: Path) -> Kept:
    """Read what a store holds."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        query = "SELECT q.device, q.seq, q.message FROM queue q JOIN position p"
        query += " ON p.device = q.device AND q.seq > p.acked"
        return Kept(
            dict(db.execute("SELECT id, chat || ' ' || sender FROM message")),
            set(db.execute(query)),
            dict(db.execute("SELECT device, acked FROM position")),
            db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()[0],
        )


def differences(copy: Kept, final: Kept, before: int) -> list[str]:
    """Say in what a copy is not the store as it was at one instant.

    `before` is the newest msgId that had been confirmed when the backup began.
    """
    newest = max(copy.messages, default=0)
    found = []
    if newest < before:
        found.append(f"it ends at msgId {newest}, though {before} was confirmed")
    if copy.messages != {n: what for n, what in final.messages.items() if n <= newest}:
        found.append(f"it does not hold all messages up to {newest}")
    for device, seq, message in final.places:
        if message <= newest and (device, seq, message) not in copy.places:
            found.append(f"msgId {message} is not in queue {device}")
    if any(final.acked.get(device, 0) < acked for device, acked in copy.acked.items()):
        found.append("it has acks that came later")
    if copy.epoch == final.epoch:
        found.append("it has the same epoch")
    return found


async def drill(folder: Path, times: int, seed: int) -> Totals:
    """Make backups of a server at work, then restore and compare them."""
    totals = Totals()
    (folder / "shelf").mkdir()
    (folder / "server").mkdir()
    process = Process(folder / "server", store_reserve=0)
    befores = []
    try:
        await asyncio.to_thread(process.start)
        company = Company(process.dial, seed)
        await company.set_up()
        going = True

        async def work() -> None:
            while going:
                await company.work(STEPS)

        working = asyncio.create_task(work())
        for number in range(times):
            befores.append(await asyncio.to_thread(newest, process.data))
            archive = folder / "shelf" / f"{number}.tar"
            command = [sys.executable, "-m", "pushd.ctl", "backup", str(archive)]
            command += ["--data", str(process.data)]
            done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
            if done.returncode:
                totals.violations.append(f"backup {number}: {done.stderr}")
        totals.least = await asyncio.to_thread(newest, process.data) - befores[0]
        going = False
        await working
        process.dial.close()
        await asyncio.to_thread(process.stop)
    finally:
        process.kill()
    final = kept(process.data / "pushd.db")
    for number, before in enumerate(befores):
        look_at(folder, number, before, final, totals)
    return totals


def newest(data: Path) -> int:
    """Give the newest msgId that is committed."""
    with closing(sqlite3.connect(f"file:{data / 'pushd.db'}?mode=ro", uri=True)) as db:
        found: int = db.execute("SELECT max(id) FROM message").fetchone()[0]
        return found


def look_at(folder: Path, number: int, before: int, final: Kept, totals: Totals) -> None:
    """Restore a backup and compare it."""
    archive, data = folder / "shelf" / f"{number}.tar", folder / f"restored {number}"
    if not archive.exists():
        return
    restore(archive, data, now=Clock().wall)
    problems = broken_rules(data) + wrong_files(data)
    copy = kept(data / "pushd.db")
    problems += differences(copy, final, before)
    totals.violations += [f"backup {number}: {problem}" for problem in problems]
    totals.times += 1
    totals.messages += len(copy.messages)
    if number == 0:
        copy.messages.pop(min(copy.messages))
        if found := differences(copy, final, before):
            totals.control = f"caught: {found[0]}"
    shutil.rmtree(data)
    archive.unlink()


def main() -> int:
    """Run from the command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.disk.drill", description=__doc__)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    patient()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=SCRATCH) as name:
        totals = asyncio.run(drill(Path(name), options.times, options.seed))
    figures = {
        "backups restored": totals.times,
        "messages compared": totals.messages,
        "messages sent meanwhile": totals.least,
        "seconds": round(time.monotonic() - began),
    }
    return conclude("drill", figures, totals.violations, {"a message taken out": totals.control})


if __name__ == "__main__":
    sys.exit(main())
