"""Migrations: every older schema becomes the newest one, whole or not at all.

A store of version N is made by running the first N scripts. `Failing` is a connection whose n-th
statement fails, alone or with all that follow, as a crash has it.
"""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest

from pushd.errors import StoreRefused
from pushd.store import engine
from pushd.store.engine import FILE, migrate, migrations, open_writer

VERSIONS = range(len(migrations()) + 1)


def connect(folder: Path) -> sqlite3.Connection:
    db = sqlite3.connect(folder / FILE, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    # What breaks off here are statements, and no disk: whoever means one opens a store of pushd's.
    db.execute("PRAGMA synchronous=OFF")
    return db


def make(folder: Path, version: int) -> None:
    """Make a store as the release with so many migrations left it."""
    with closing(connect(folder)) as db:
        for script in migrations()[:version]:
            db.executescript(script)
        db.execute(f"PRAGMA user_version={version}")


def schema(folder: Path) -> list[tuple[str, str, str]]:
    """Everything that is defined, and the version."""
    with closing(connect(folder)) as db:
        rows = db.execute("SELECT type, name, coalesce(sql, '') FROM sqlite_master").fetchall()
        [version] = db.execute("PRAGMA user_version").fetchone()
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return [*sorted(rows), ("version", str(version), "")]


class Failing:
    """A connection whose n-th statement fails, and for good all after it."""

    def __init__(self, db: sqlite3.Connection, at: int, for_good: bool) -> None:
        self._db = db
        self._left = at
        self._for_good = for_good

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        self._left -= 1
        if self._left == -1 or (self._left < 0 and self._for_good):
            raise sqlite3.OperationalError("disk I/O error")
        return self._db.execute(statement, *values)


def migrated(folder: Path) -> list[tuple[str, str, str]]:
    with closing(connect(folder)) as db:
        migrate(db)
    return schema(folder)


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, str]]:
    """The newest schema, made from nothing."""
    return migrated(tmp_path_factory.mktemp("newest"))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_older_schema_becomes_the_newest(
    tmp_path: Path, version: int, newest: list[tuple[str, str, str]]
) -> None:
    """From each version the same schema comes out, and doing it again changes nothing."""
    make(tmp_path, version)
    assert migrated(tmp_path) == newest
    assert migrated(tmp_path) == newest


def failures(folder: Path, version: int, for_good: bool) -> Iterator[int]:
    """Break a migration off at each of its statements in turn; gives where it was."""
    make(folder, version)
    older = (folder / FILE).read_bytes()
    for at in count():
        for path in folder.iterdir():
            path.unlink()
        (folder / FILE).write_bytes(older)
        # The connection goes in the middle of its transaction.
        with closing(connect(folder)) as db:
            try:
                migrate(cast(sqlite3.Connection, Failing(db, at, for_good)))
                return
            except sqlite3.OperationalError:
                pass
        yield at


@pytest.mark.slow
@pytest.mark.parametrize("for_good", [False, True])
@pytest.mark.parametrize("version", VERSIONS[:-1])
def test_a_migration_that_breaks_off_is_done_by_the_next_start(
    tmp_path: Path, version: int, for_good: bool, newest: list[tuple[str, str, str]]
) -> None:
    """At whatever statement it stops, one of the versions is there whole, and then the newest."""
    whole = []
    for older in VERSIONS:
        folder = tmp_path / str(older)
        folder.mkdir()
        make(folder, older)
        whole.append(schema(folder))
    broken = tmp_path / "broken"
    broken.mkdir()
    points = 0
    for at in failures(broken, version, for_good):
        points += 1
        assert schema(broken) in whole, f"stopped at statement {at}"
        assert migrated(broken) == newest
    assert points >= 5


async def opened(folder: Path) -> None:
    worker = await open_writer(folder, checkpoint_pages=1000)
    await worker.close()


async def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    """An older program says what to do and changes nothing."""
    make(tmp_path, VERSIONS[-1])
    newer = len(VERSIONS)
    with closing(connect(tmp_path)) as db:
        db.execute(f"PRAGMA user_version={newer}")
    before = schema(tmp_path)
    with pytest.raises(StoreRefused, match=f"schema {newer}.*install a newer one"):
        await opened(tmp_path)
    assert schema(tmp_path) == before


async def test_the_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    """Tables that are not ours are never mixed with ours."""
    with closing(connect(tmp_path)) as db:
        db.execute("CREATE TABLE recipe (name)")
    before = schema(tmp_path)
    with pytest.raises(StoreRefused, match="not one of pushd"):
        await opened(tmp_path)
    assert schema(tmp_path) == before


async def test_an_empty_file_is_a_new_store(
    tmp_path: Path, newest: list[tuple[str, str, str]]
) -> None:
    """What a start left that was killed before its first write is taken as nothing."""
    (tmp_path / FILE).touch()
    await opened(tmp_path)
    assert schema(tmp_path) == newest


async def test_a_text_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    """A file that is no database is not overwritten."""
    (tmp_path / FILE).write_text("dear diary\n" * 100)
    with pytest.raises(StoreRefused, match="not a database: move it away"):
        await opened(tmp_path)
    assert (tmp_path / FILE).read_text().startswith("dear diary")


async def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    """A database whose first pages are overwritten is told from one that is fine."""
    make(tmp_path, VERSIONS[-1])
    data = bytearray((tmp_path / FILE).read_bytes())
    data[100:4096] = b"\xff" * 3996
    (tmp_path / FILE).write_bytes(data)
    with pytest.raises(StoreRefused, match="damaged: restore a backup"):
        await opened(tmp_path)


async def test_a_log_without_its_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    """SQLite would remove it without a word, and with it what was confirmed."""
    make(tmp_path, VERSIONS[-1])
    with closing(connect(tmp_path)) as db:
        db.execute("INSERT INTO meta VALUES ('a', 'b')")
        shutil.copy(tmp_path / f"{FILE}-wal", tmp_path / "kept")
    (tmp_path / FILE).unlink()
    (tmp_path / "kept").rename(tmp_path / f"{FILE}-wal")
    with pytest.raises(StoreRefused, match="its log is there, but it is not"):
        await opened(tmp_path)
    assert (tmp_path / f"{FILE}-wal").stat().st_size > 0
    assert not (tmp_path / FILE).exists()


@pytest.mark.slow
def test_a_read_only_store_is_refused_in_one_line(tmp_path: Path) -> None:
    """The file, or the folder: with what to do about it."""
    make(tmp_path, VERSIONS[-1])
    (tmp_path / FILE).chmod(0o400)
    tmp_path.chmod(0o500)
    try:
        run = subprocess.run(
            ["setpriv", "--reuid=65534", "--clear-groups", *OPEN, str(tmp_path)],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        )
    except FileNotFoundError:
        pytest.skip("needs setpriv")
    finally:
        tmp_path.chmod(0o700)
    if "setpriv" in run.stderr or "ermission" in run.stderr.partition(FILE)[0]:
        pytest.skip("needs another user who may run this Python")
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1
    assert str(tmp_path) in run.stderr


# --- faults of the machine ----------------------------------------------------------------------

PROGRAM = """
import asyncio, sys
from pathlib import Path
from pushd.errors import StoreRefused
from pushd.store.engine import open_writer
async def main():
    worker = await open_writer(Path(sys.argv[1]), checkpoint_pages=1000)
    await worker.close()
try:
    asyncio.run(main())
except StoreRefused as problem:
    sys.exit(str(problem))
"""
OPEN = (sys.executable, "-c", PROGRAM)
PROBE = ("strace", "-f", "-qq", "true")
WRITES = "pwrite64,fdatasync,ftruncate"
MOST_POINTS = 8  # of one kind of fault


def traced(folder: Path, *faults: str) -> subprocess.CompletedProcess[str]:
    """Open the store of a folder in a process whose writes are traced, and may fail."""
    options = [word for fault in faults for word in ("-e", f"inject={fault}")]
    trace = ["strace", "-f", "-qq", "-o", str(folder / "trace"), "-e", f"trace={WRITES}"]
    return subprocess.run(
        [*trace, *options, *OPEN, str(folder)], capture_output=True, text=True, timeout=60
    )


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["signal=SIGKILL", "error=EIO", "error=ENOSPC"])
@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
def test_a_migration_that_the_machine_breaks_off_is_done_by_the_next_start(
    tmp_path: Path, fault: str, call: str, newest: list[tuple[str, str, str]]
) -> None:
    """A kill, an I/O error or a full disk at some write: one line, and the second start works."""
    if not shutil.which("strace") or subprocess.run(PROBE, capture_output=True).returncode:
        pytest.skip("needs strace, and the right to trace")
    counting = tmp_path / "counting"
    counting.mkdir()
    make(counting, 1)
    assert traced(counting).returncode == 0
    total = (counting / "trace").read_text().count(f"{call}(")
    assert total > 3
    stopped = 0
    for number in range(1, total + 1, max(1, total // MOST_POINTS)):
        folder = tmp_path / str(number)
        folder.mkdir()
        make(folder, 1)
        run = traced(folder, f"{call}:{fault}:when={number}")
        if run.returncode:
            stopped += 1
        if run.returncode == 1:
            assert run.stderr.count("\n") == 1, run.stderr
        assert run.returncode in (0, 1, -9, 137)
        for _ in range(2):
            asyncio.run(opened(folder))
        assert schema(folder) == newest
    assert stopped > 2


def test_scripts_are_split_where_statements_end() -> None:
    """A semicolon in a trigger, a text or a comment ends no statement."""
    script = (
        "-- one; two\n"
        "CREATE TABLE a (x TEXT DEFAULT ';'); -- three;\n"
        "CREATE TRIGGER t AFTER INSERT ON a BEGIN\n"
        "  DELETE FROM a WHERE x = 'y;';\n"
        "  SELECT 1;\n"
        "END;\n"
        "-- the end\n"
    )
    statements = engine._statements(script)
    assert len(statements) == 2
    with closing(sqlite3.connect(":memory:")) as db:
        for statement in statements:
            db.execute(statement)


def test_a_statement_that_is_not_ended_is_a_mistake() -> None:
    """A script whose last statement has no semicolon would silently lose it."""
    with pytest.raises(AssertionError):
        engine._statements("CREATE TABLE a (x);\nCREATE TABLE b (x)\n")
