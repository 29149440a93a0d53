"""Short forms of the tools that kill, fail, fill and damage, and what they rest on."""

import asyncio
import os
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pushd.errors import StoreRefused
from pushd.store.check import open_stopped
from pushd.store.wal import ENOUGH, FRAME_HEAD, HEAD, find_damage
from tests.disk import drill, errors, fulldisk, killpoints, migrations
from tests.disk.attempts import attempt, template
from tests.disk.images import recover
from tests.disk.traced import obstacle

PAGE = 4096
COMMITS = 8


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server's folder as a first start leaves it."""
    if missing := obstacle():
        pytest.skip(missing)
    return template(tmp_path_factory.mktemp("made"), **killpoints.SETTINGS)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "fault", ["pwrite64:signal=SIGKILL:when=80", "fsync:signal=SIGKILL:when=2"]
)
def test_a_server_killed_at_a_call_loses_nothing(source: Path, tmp_path: Path, fault: str) -> None:
    """What was confirmed before the call is there, and the store is whole."""
    outcome = attempt(source, fault, tmp_path, **killpoints.SETTINGS)
    assert outcome.problems == []
    assert outcome.code == -9 or not outcome.started


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_store_that_forgets_is_found_out(source: Path, tmp_path: Path) -> None:
    """Control: a confirmed message that was removed is missed."""
    assert killpoints.lost_message(source, tmp_path).startswith("caught")


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("fault", "came"),
    [
        ("fdatasync:error=EIO:when=8", "1 ended with 1"),
        ("pwrite64:error=ENOSPC:when=90", "1 refused"),
        ("open:EMFILE:9", "1 refused"),
    ],
)
def test_a_call_that_fails_confirms_nothing_false(
    source: Path, tmp_path: Path, fault: str, came: str
) -> None:
    """The server ends with one line or goes on and refuses, as it is documented."""
    outcome = errors.one(source, tmp_path, fault, errors.COMMITS_ALONE)
    assert outcome.problems == []
    assert errors.what_came([outcome]) == came


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_server_that_syncs_again_is_found_out(source: Path, tmp_path: Path) -> None:
    """Control: one that goes on after a failed sync."""
    assert errors.control(source, tmp_path).startswith("caught")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_full_disk_is_lived_through() -> None:
    """Filled by messages, files and the log, it loses nothing and accepts again by itself."""
    try:
        totals = asyncio.run(fulldisk.fill(4, seed=1))
    except OSError as problem:
        pytest.skip(str(problem))
    assert totals.violations == []
    assert (totals.rounds, totals.restarts) == (4, 1)


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_disk_without_a_byte_lets_devices_in(tmp_path: Path) -> None:
    """The reserve is used up behind a reader, and the server is killed: people resume and read."""
    data = tmp_path / "data"
    try:
        with fulldisk.small_disk(data):
            assert await fulldisk.exhausted(tmp_path) == []
    except OSError as problem:
        pytest.skip(str(problem))


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_backup_is_of_one_instant(tmp_path: Path) -> None:
    """It holds all up to some message and nothing behind it; a missing one is seen."""
    totals = await drill.drill(tmp_path, 1, seed=1)
    assert totals.violations == []
    assert totals.control.startswith("caught")


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", migrations.FAULTS[:2])
def test_a_migration_that_breaks_off_is_done_by_the_next_start(tmp_path: Path, fault: str) -> None:
    """The store is of one version, whole, and becomes the newest one."""
    if missing := obstacle():
        pytest.skip(missing)
    wholes = migrations.all_versions(tmp_path)
    point = migrations.Point(5, "pwrite64", fault, 4)
    assert migrations.broken_off(wholes, tmp_path, point) == []


# --- a damaged log ----------------------------------------------------------------------------


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[Path]:
    """A folder with a store, and commits in its log as a killed server leaves them."""
    folder = tmp_path / "data"
    folder.mkdir()
    asyncio.run(recover(folder))
    with closing(sqlite3.connect(folder / "pushd.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        for number in range(COMMITS):
            db.execute("INSERT INTO meta VALUES (?, 'x')", (f"k{number}",))
        killed = tmp_path / "killed"
        killed.mkdir()
        for name in ("pushd.db", "pushd.db-wal"):
            shutil.copy(folder / name, killed)
    yield killed


def frames(folder: Path) -> int:
    return ((folder / "pushd.db-wal").stat().st_size - HEAD) // (FRAME_HEAD + PAGE)


def broken(folder: Path, frame: int) -> None:
    """Change one byte of a page in the log."""
    with (folder / "pushd.db-wal").open("r+b") as file:
        file.seek(HEAD + frame * (FRAME_HEAD + PAGE) + 100)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def keys(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "pushd.db")) as db:
        found: int = db.execute("SELECT count(*) FROM meta WHERE value = 'x'").fetchone()[0]
        return found


def test_a_damaged_log_is_refused_each_time(logged: Path) -> None:
    """Commits behind a changed byte are not dropped without a word, and the refusal keeps them."""
    whole = (logged / "pushd.db-wal").read_bytes()
    broken(logged, 2)
    for _ in range(2):
        with pytest.raises(StoreRefused, match=r"damaged at byte .* commits or more behind"):
            asyncio.run(recover(logged))
    with pytest.raises(StoreRefused, match="damaged at byte"), open_stopped(logged):
        pass
    # The byte is put right, for example from a copy: all is there.
    (logged / "pushd.db-wal").write_bytes(whole)
    asyncio.run(recover(logged))
    assert keys(logged) == COMMITS


def test_a_damaged_head_is_refused(logged: Path) -> None:
    """It would make the whole log nothing."""
    with (logged / "pushd.db-wal").open("r+b") as file:
        file.seek(16)
        file.write(b"\0\0\0\0")
    with pytest.raises(StoreRefused, match="damaged at byte 32"):
        asyncio.run(recover(logged))


def test_a_log_begun_again_is_no_damage(logged: Path) -> None:
    """A power cut at the first write into a log that is in the database takes nothing.

    The front of the log is then of the new one, in part or whole, and the rest of the old one.
    """
    broken(logged, 0)
    with pytest.raises(StoreRefused, match="damaged at byte 32"):
        asyncio.run(recover(logged))  # it is not in the database yet
    broken(logged, 0)  # as it was
    log = (logged / "pushd.db-wal").read_bytes()
    with closing(sqlite3.connect(logged / "pushd.db")) as db:
        assert db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1] == frames(logged)
        stored = (logged / "pushd.db").read_bytes()
    for where in (100, 8):  # a page, and the mark that tells the logs apart
        torn = bytearray(log)
        torn[HEAD + where] ^= 1
        (logged / "pushd.db").write_bytes(stored)
        (logged / "pushd.db-wal").write_bytes(torn)
        (logged / "pushd.db-shm").unlink(missing_ok=True)
        asyncio.run(recover(logged))
        assert keys(logged) == COMMITS


def test_the_end_that_a_power_cut_left_is_no_damage(logged: Path) -> None:
    """The last commit may be torn in any way: the server starts without it."""
    count = frames(logged)
    broken(logged, count - 1)
    asyncio.run(recover(logged))
    assert keys(logged) == COMMITS - 1


def test_a_log_may_be_cut_off_where_it_is_damaged(logged: Path) -> None:
    """As the refusal says: what comes before is there."""
    broken(logged, 3)
    with pytest.raises(StoreRefused) as refused:
        asyncio.run(recover(logged))
    offset = int(str(refused.value).partition("byte ")[2].split(",")[0])
    os.truncate(logged / "pushd.db-wal", offset)
    asyncio.run(recover(logged))
    assert 0 < keys(logged) < COMMITS


def test_few_commits_behind_a_broken_frame_are_not_sure(logged: Path) -> None:
    """Less than three may never have been synced, if kills came before a power cut."""
    count = frames(logged)
    for back in range(1, ENOUGH + 1):
        data = (logged / "pushd.db-wal").read_bytes()
        broken(logged, count - back)
        copy = logged.parent / f"copy {back}"
        shutil.copytree(logged, copy)
        asyncio.run(recover(copy))
        (logged / "pushd.db-wal").write_bytes(data)


def test_no_log_is_no_damage(tmp_path: Path) -> None:
    """Files that are not there, or empty, tell nothing."""
    assert find_damage(tmp_path / "a", tmp_path / "b", tmp_path / "c") is None
    for name in "ab":
        (tmp_path / name).touch()
    assert find_damage(tmp_path / "a", tmp_path / "b", tmp_path / "c") is None


def test_rows_that_are_damaged_are_refused_in_a_line(tmp_path: Path) -> None:
    """Damage that only the first reading comes across ends the start in the same way."""
    asyncio.run(recover(tmp_path))
    with closing(sqlite3.connect(tmp_path / "pushd.db")) as db:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'message'"
        page = db.execute(query).fetchone()[0]
    with (tmp_path / "pushd.db").open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(random.Random(1).randbytes(PAGE))
    with pytest.raises(StoreRefused, match="it is damaged: restore a backup"):
        asyncio.run(recover(tmp_path))
