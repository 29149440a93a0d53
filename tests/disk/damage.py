"""Damage a store that is stopped, and see whether the damage is told and nothing wrong delivered.

    python -m tests.disk.damage --seeds 200

A store with messages, queues and files is made once, and stopped by a kill, so that a log is
there. For each seed one place of the database, its log or a file is damaged: bytes changed, a
sector or a page zeroed, the end cut off. Then it is told or it is not:

    refused     the server does not start, with one line, each time that it is tried
    failed      it starts, and ends when it comes across the place
    check       `pushctl check` finds it (pages, references, rules, sums of files)
    lost        a part of the log is not there any more, and nobody says so
    unnoticed   nobody says anything; what is delivered is compared with what was sent

SQLite has no sums of its pages; pushd has sums of its messages, and a mark of the newest one.
Without these, as a control, messages must be wrong and be lost. Exit code 1 for what must never
be: a crash without a line, a wrong message or a lost one of which nobody says anything.
"""

import argparse
import asyncio
import random
import shutil
import sqlite3
import struct
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pushd.errors import StoreRefused
from pushd.store.check import RULES
from tests.conformance.process import Process
from tests.disk.attempts import SCRATCH
from tests.disk.images import broken_rules, recover, wrong_files
from tests.disk.load import Company
from tests.model.record import conclude

PAGE = 4096
FRAME = 24 + PAGE
STEPS = 40
BEHIND = 60  # frames of the log that nothing but the log holds
# What is damaged, as often as it is named.
TARGETS = ("db",) * 5 + ("wal",) * 3 + ("media",) * 2
QUIET = ("unnoticed", "lost")
KINDS = ("bit", "bytes", "sector", "page", "cut")

Rows = dict[tuple[int, ...], tuple[object, ...]]


@dataclass
class Found:
    """What came of one damage."""

    target: str
    kind: str
    told: str = ""  # by what
    wrong: int = 0  # messages or places in queues that are not what they were
    lost: int = 0  # that are not there
    problems: list[str] = field(default_factory=list)


def truth(folder: Path) -> Rows:
    """Read all messages and all queues."""
    with closing(sqlite3.connect(f"file:{folder / 'pushd.db'}?mode=ro", uri=True)) as db:
        rows: Rows = {
            (number,): rest
            for number, *rest in db.execute("SELECT id, chat, sender, body FROM message")
        }
        query = "SELECT q.device, q.seq, q.message FROM queue q JOIN position p"
        query += " ON p.device = q.device AND q.seq > p.acked"
        rows |= {(device, seq): (message,) for device, seq, message in db.execute(query)}
    return rows


def make(folder: Path) -> None:
    """Make a store and stop its server by a kill, with a log behind it."""
    process = Process(folder, store_reserve=0, store_checkpoint_pages=150)

    async def play() -> None:
        company = Company(process.dial, 1)
        await asyncio.to_thread(process.start)
        await company.set_up()
        await company.work(STEPS)
        while behind(folder / "data" / "pushd.db-shm") < BEHIND:
            await company.work(1)
        process.dial.close()

    try:
        asyncio.run(play())
    finally:
        process.kill()
    for name in ("pushd.db-shm", "control.sock"):
        (folder / "data" / name).unlink()


def behind(index: Path) -> int:
    """Tell how many frames of the log are not in the database, by the log's index."""
    with index.open("rb") as file:
        head = struct.unpack("=25I", file.read(100))
    return int(head[4] - head[24])


def frames(path: Path) -> int:
    """Count the frames of a log that are in use: those with the salts of its head."""
    data = path.read_bytes()
    count = 0
    while data[32 + count * FRAME + 8 : 32 + count * FRAME + 16] == data[16:24]:
        count += 1
    return count


def hurt(folder: Path, rng: random.Random) -> tuple[str, str]:
    """Damage one place; gives the kind of file and of damage."""
    target, kind = rng.choice(TARGETS), rng.choice(KINDS)
    if target == "media":
        media = folder / "media"
        path = rng.choice(sorted(each for each in media.glob("??/*") if each.is_file()))
        place = rng.randrange(path.stat().st_size)
    else:
        path = folder / ("pushd.db" if target == "db" else "pushd.db-wal")
        size = PAGE if target == "db" else FRAME
        count = path.stat().st_size // PAGE if target == "db" else frames(path)
        place = rng.randrange(count) * size + rng.randrange(size) + 32 * (target == "wal")
    data = bytearray(path.read_bytes())
    before = bytes(data)
    while bytes(data) == before:
        change(data, place, kind, rng)
    path.write_bytes(data)
    return target, kind


def change(data: bytearray, place: int, kind: str, rng: random.Random) -> None:
    """Damage a content at a place."""
    if kind == "bit":
        data[place] ^= 1 << rng.randrange(8)
    elif kind == "bytes":
        length = min(rng.randint(1, 64), len(data) - place)
        data[place : place + length] = rng.randbytes(length)
    elif kind == "cut":
        del data[place:]
    else:
        size = 512 if kind == "sector" else PAGE
        start = place // size * size
        length = min(size, len(data) - start)
        # A content that is zero already is made something else.
        data[start : start + length] = (
            bytes(length) if any(data[start : start + length]) else (rng.randbytes(length))
        )


def one(source: Path, scratch: Path, known: Rows, seed: int, *, blind: bool = False) -> Found:
    """Damage a copy and see what is told of it; `blind` leaves out what pushd adds to SQLite."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name) / "data"
        shutil.copytree(source, folder)
        if blind:
            (folder / "newest").unlink()
            RULES.pop("a damaged message", None)
        found = Found(*hurt(folder, rng))
        try:
            asyncio.run(recover(folder))
        except StoreRefused as problem:
            found.told = "refused"
            again = refusal(folder)
            if again != str(problem):
                found.problems.append(f"refused by {problem!r}, then by {again!r}")
            return found
        except (sqlite3.Error, OSError) as problem:
            found.problems.append(f"no refusal but {problem!r}")
            return found
        compare(folder, known, found)
        if not found.told and check(folder):
            found.told = "check"
        if not found.told:
            found.told = "lost" if found.lost else "unnoticed"
    return found


def refusal(folder: Path) -> str:
    """Try to start once more; gives how it is refused."""
    try:
        asyncio.run(recover(folder))
    except StoreRefused as problem:
        return str(problem)
    return ""


def compare(folder: Path, known: Rows, found: Found) -> None:
    """Hold what is in the store against what was in it."""
    try:
        there = truth(folder)
    except sqlite3.Error:
        # A server that comes across it ends, for it trusts nothing then.
        found.told = "failed"
        return
    # A place of a queue that is there again was acked, which is lost with the end of a log.
    found.wrong = sum(
        known.get(key, row if len(key) > 1 else ()) != row for key, row in there.items()
    )
    found.lost = len(known.keys() - there.keys())


def check(folder: Path) -> list[str]:
    """Say what `pushctl check` finds."""
    try:
        return broken_rules(folder) or wrong_files(folder)
    except (StoreRefused, sqlite3.Error) as problem:
        return [str(problem)]


async def served(source: Path, scratch: Path, seed: int) -> list[str]:
    """Start a real server on a damaged copy: it starts, or ends with 1 and one line, twice."""
    found = []
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        shutil.copytree(source, folder / "data")
        what = hurt(folder / "data", random.Random(seed))
        process = Process(folder, store_reserve=0)
        lines = 0
        for _ in range(2):
            try:
                await asyncio.to_thread(process.start)
                await asyncio.to_thread(process.stop)
            except RuntimeError:
                assert process.process is not None
                if process.process.returncode != 1:
                    found.append(f"{what}: it ended with {process.process.returncode}")
                lines += 1
        loud = [line for line in process.log_text().splitlines() if "level=critical" in line]
        if len(loud) != lines or "Traceback" in process.log_text():
            found.append(f"{what}: {lines} refusals, {len(loud)} lines")
    return found


def main() -> int:
    """Run from the command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.disk.damage", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--served", type=int, default=10, help="damages shown to a real server")
    parser.add_argument("--controls", type=int, default=120, help="damages for the control")
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=SCRATCH) as name:
        scratch = Path(name)
        (scratch / "made").mkdir()
        make(scratch / "made")
        source = scratch / "made" / "data"
        reference = scratch / "reference"
        shutil.copytree(source, reference)
        asyncio.run(recover(reference))
        known = truth(reference)
        seeds = range(options.seed, options.seed + options.seeds)
        with ProcessPoolExecutor(2) as pool:
            found = list(pool.map(partial(one, source, scratch, known), seeds, chunksize=4))
        # In processes of their own, for these forget a rule.
        with ProcessPoolExecutor(2) as pool:
            look = partial(one, source, scratch, known, blind=True)
            unseen = list(pool.map(look, seeds[: options.controls], chunksize=4))
        violations = [problem for each in found for problem in each.problems]
        for seed in range(options.seed, options.seed + options.served):
            violations += asyncio.run(served(source, scratch, seed))
    figures: dict[str, str | int | float] = {"damages": len(found)}
    for target in ("db", "wal", "media"):
        told = Counter(each.told for each in found if each.target == target)
        figures[f"of them in {target}"] = ", ".join(f"{n} {what}" for what, n in told.most_common())
    quiet = [each for each in found if each.told in QUIET]
    harmless = [each for each in quiet if not each.wrong and not each.lost]
    figures["not told"] = ", ".join(
        f"{count} {target} {kind}"
        for (target, kind), count in Counter((e.target, e.kind) for e in quiet).most_common()
    )
    figures["not told, and without any effect"] = len(harmless)
    effective = len(found) - len(harmless)
    figures["told of those with an effect, %"] = round(
        100 * (effective - len(quiet) + len(harmless)) / max(1, effective), 1
    )
    violations += [
        f"{each.target}, {each.kind}: {each.wrong} wrong and {each.lost} lost messages, untold"
        for each in quiet
        if each.wrong or each.lost
    ]
    figures["damages that make a message wrong, untold"] = sum(bool(each.wrong) for each in quiet)
    figures["damages that lose messages, untold"] = sum(bool(each.lost) for each in quiet)
    figures["seconds"] = round(time.monotonic() - began)
    wrong = sum(bool(each.wrong) for each in unseen if each.told in QUIET)
    lost = sum(bool(each.lost) for each in unseen if each.told in QUIET)
    caught = "caught" if wrong and lost else "MISSED"
    controls = {"no checksums, no newest": f"{caught}: {wrong} wrong and {lost} lost untold"}
    return conclude("damage", figures, violations, controls)


if __name__ == "__main__":
    sys.exit(main())
