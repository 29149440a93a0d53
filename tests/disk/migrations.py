"""Break the migration of each older schema off at each of its writes.

    python -m tests.disk.migrations                # all points; --every 10 for a tenth of them

A store of each older version, with a few rows, is opened by a process under strace in which the
n-th write, sync or cut is a SIGKILL, or fails with EIO or ENOSPC. What is left must be one of the
versions, whole; the next start must bring it to the newest one and the start after that change
nothing. A failure ends the process with one line. Exit code 1 if any of this does not hold.
"""

import argparse
import asyncio
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pushd.errors import StoreRefused
from pushd.store.engine import FILE, migrations, open_writer
from tests.disk.attempts import SCRATCH
from tests.disk.traced import obstacle
from tests.model.record import conclude

CALLS = ("pwrite64", "fdatasync", "ftruncate")
FAULTS = ("signal=SIGKILL", "error=EIO", "error=ENOSPC")
PHONE = "13800000000"
OPEN = "import sys; from tests.disk.migrations import start; sys.exit(start(sys.argv[1]))"


class Point(NamedTuple):
    """Where a migration is broken off."""

    version: int
    call: str
    fault: str
    number: int


def make(folder: Path, version: int) -> None:
    """Make a store as the release with so many migrations left it, with a few rows."""
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        for script in migrations()[:version]:
            db.executescript(script)
        db.execute(f"PRAGMA user_version={version}")
        if version:
            db.execute(
                "INSERT INTO account (id, phone, password, created, modified)"
                " VALUES (10001, ?, x'00', 1, 1)",
                (PHONE,),
            )
            db.execute("INSERT INTO chat VALUES (1, 'system/10001', 'system')")
            db.execute("INSERT INTO member (chat, account) VALUES (1, 10001)")
            db.execute(
                "INSERT INTO message (id, chat, sender, created, body, text)"
                " VALUES (1, 1, 0, 1, ?, 'x')",
                (f'"x":"{"x" * 9000}"',),
            )


def start(data: str) -> int:
    """Open a store as the start of a server does; gives the exit code."""

    async def opened() -> None:
        worker = await open_writer(Path(data), checkpoint_pages=1000)
        await worker.close()

    try:
        asyncio.run(opened())
    except StoreRefused as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


def schema(folder: Path) -> tuple[int, int, str]:
    """Give the version, how many rows of the account are there, and all definitions."""
    with closing(sqlite3.connect(folder / FILE)) as db:
        rows = db.execute("SELECT type, name, coalesce(sql, '') FROM sqlite_master").fetchall()
        version: int = db.execute("PRAGMA user_version").fetchone()[0]
        if db.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            return -1, 0, "damaged"
        accounts = db.execute("SELECT count(*) FROM account").fetchone()[0] if version else 0
        return version, accounts, str(sorted(rows))


def run(folder: Path, trace: Path, inject: str = "") -> tuple[int, str]:
    """Open a store under strace; gives the exit code and what was said."""
    strace = ["strace", "-f", "-qq", "-o", str(trace), "-e", f"trace={','.join(CALLS)}"]
    strace += ["-e", f"inject={inject}"] if inject else []
    done = subprocess.run(
        [*strace, sys.executable, "-c", OPEN, str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stderr


def counted(version: int, scratch: Path) -> Counter[str]:
    """Count the calls of a migration."""
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        make(folder, version)
        code, said = run(folder, folder / "trace")
        assert code == 0, said
        lines = (folder / "trace").read_text().splitlines()
    return Counter(line.split()[1].partition("(")[0] for line in lines)


def broken_off(wholes: list[tuple[int, int, str]], scratch: Path, point: Point) -> list[str]:
    """Break a migration off and start twice; gives what is wrong."""
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        make(folder, point.version)
        inject = f"{point.call}:{point.fault}:when={point.number}"
        code, said = run(folder, folder / "trace", inject)
        found = []
        lines = [line for line in said.splitlines() if line]
        if code == 1 and len(lines) != 1:
            found.append(f"{point}: said {said!r}")
        if code not in (0, 1, -9, 137):
            found.append(f"{point}: ended with {code}")
        left = folder / "left"
        left.mkdir()
        for path in folder.glob(f"{FILE}*"):
            shutil.copy(path, left)
        version, accounts, definitions = schema(left)
        whole = wholes[version] if version >= 0 else None
        if (
            whole is None
            or definitions != whole[2]
            or (version and accounts != whole[1] and point.version)
        ):
            found.append(f"{point}: left version {version}, which is not whole")
        for _ in range(2):
            if start(str(folder)) != 0:
                found.append(f"{point}: the next start was refused")
                break
            version, accounts, definitions = schema(folder)
            if definitions != wholes[-1][2] or accounts != bool(point.version):
                found.append(f"{point}: the next start came to version {version}")
    return found


def main() -> int:
    """Run from the command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.disk.migrations", description=__doc__)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=2)
    options = parser.parse_args()
    if missing := obstacle():
        parser.error(missing)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=SCRATCH) as name:
        scratch = Path(name)
        wholes = all_versions(scratch)
        points = [
            Point(version, call, fault, number + 1)
            for version in range(len(wholes) - 1)
            for call, count in sorted(counted(version, scratch).items())
            for number in range(count)
            for fault in FAULTS
        ][:: options.every]
        with ThreadPoolExecutor(options.at_once) as pool:
            results = pool.map(partial(broken_off, wholes, scratch), points)
            violations = [problem for found in results for problem in found]
    figures: dict[str, str | int | float] = {"migrations broken off": len(points)}
    for fault, count in Counter(point.fault for point in points).items():
        figures[fault] = count
    figures["seconds"] = round(time.monotonic() - began)
    return conclude("migrations", figures, violations)


def all_versions(scratch: Path) -> list[tuple[int, int, str]]:
    """Give what each version looks like when it is whole."""
    wholes = []
    for version in range(len(migrations()) + 1):
        folder = scratch / f"version {version}"
        folder.mkdir()
        make(folder, version)
        wholes.append(schema(folder))
    return wholes


if __name__ == "__main__":
    sys.exit(main())
