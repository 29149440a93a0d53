"""Backup and restore: one instant, whole or nothing, and a history of its own afterwards.

The server's side runs in process on a `Bench`; `Disk.full` is a disk that ends after some bytes.
"""

import asyncio
import gzip
import io
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from pushd import backup
from pushd.archive import ArchiveError, Manifest
from pushd.errors import PushdError, Refusal, StoreRefused
from pushd.jobs import Job, Jobs, Stopped
from pushd.store import FILE
from pushd.store.engine import LOCK, RESTORING
from tests.test_files_store import PNG, Bench, to

SECOND = 1000


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    folder = tmp_path / "data"
    folder.mkdir()
    made = Bench(folder)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Where backups are put."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    return folder


async def make(bench: Bench, target: Path, job: Job | None = None, **more: Any) -> Manifest:
    job = job or Job("backup")
    return await backup.make(bench.store, bench.media, target, job, now=bench.clock.wall, **more)


def restored(source: Path, data: Path, at: int = 0) -> Manifest:
    return backup.restore(source, data, now=lambda: at)


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def sql(folder: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / FILE)) as db:
        return db.execute(query).fetchall()


def entries(source: Path) -> dict[str, bytes]:
    with tarfile.open(source) as tar:
        return {each.name: tar.extractfile(each).read() for each in tar}  # type: ignore[union-attr]


def packed(target: Path, parts: dict[str, bytes], **kinds: bytes) -> Path:
    """Write an archive by hand."""
    with tarfile.open(target, "w") as tar:
        for name, data in parts.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.type = kinds.get("kind", tarfile.REGTYPE)
            tar.addfile(entry, io.BytesIO(data))
    return target


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Put a small disk in the place of a folder; skips where nothing can be mounted."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def filled(bench: Bench) -> str:
    """Two friends, a picture that was sent and an avatar; gives the picture's path."""
    one, other = await bench.friends()
    path = await bench.save(one, PNG + b"hello")
    await bench.post(one, path, **to(other))
    return path


# --- the way there and back ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["b.tar", "b.tar.gz"])
async def test_what_is_restored_is_what_was_there(
    bench: Bench, shelf: Path, tmp_path: Path, name: str
) -> None:
    """All rows and files come back; the archive is its owner's alone, with nothing beside it."""
    path = await filled(bench)
    manifest = await make(bench, shelf / name)
    assert os.listdir(shelf) == [name]
    assert (shelf / name).stat().st_mode & 0o777 == 0o600
    assert (manifest.files, manifest.damaged) == (1, 0)
    assert manifest.rows["message"] == bench.sql("SELECT count(*) FROM message")[0][0]
    data = tmp_path / "new"
    restored(shelf / name, data, bench.clock.wall())
    assert tree(data) == {FILE, LOCK, path}
    assert (data / path).read_bytes() == PNG + b"hello"
    for table in ("account", "message", "queue", "file", "friendship"):
        assert sql(data, f"SELECT * FROM {table}") == bench.sql(f"SELECT * FROM {table}")


async def test_a_restored_store_has_a_history_of_its_own(
    bench: Bench, shelf: Path, tmp_path: Path
) -> None:
    """It has another epoch; queues stand where they stood; no msgId is given a second time."""
    await filled(bench)
    await make(bench, shelf / "b.tar")
    position = bench.sql("SELECT * FROM position")
    [(newest,)] = bench.sql("SELECT max(id) FROM message")
    data = tmp_path / "new"
    restored(shelf / "b.tar", data, bench.clock.wall() + 60 * SECOND)
    other = Bench(data)
    other._phones = iter(range(13_900_000_000, 13_900_000_100))
    await other.open()
    try:
        assert other.store.epoch != bench.store.epoch
        assert other.sql("SELECT * FROM position") == position
        one, two = await other.friends()
        await other.post(one, await other.save(one, PNG), **to(two))
        [(following,)] = other.sql("SELECT max(id) FROM message")
        assert following > newest + 60 * 100_000
    finally:
        await other.close()


async def test_the_manifest_says_what_is_in_it(bench: Bench, shelf: Path) -> None:
    """It is the last entry, and JSON that people can read."""
    await filled(bench)
    await make(bench, shelf / "b.tar")
    names = list(entries(shelf / "b.tar"))
    assert names[0] == FILE
    assert names[-1] == "manifest.json"
    found = json.loads(entries(shelf / "b.tar")["manifest.json"])
    assert found["format"] == "pushd-backup"
    assert found["epoch"] == bench.store.epoch
    assert found["date"] == "2023-11-14T22:13:20Z"


async def test_a_backup_is_of_one_instant(bench: Bench, shelf: Path, tmp_path: Path) -> None:
    """While people save, send and are swept, each file that the copy refers to is in it."""
    one, other = await bench.friends()
    stop = False

    async def life() -> None:
        number = 0
        while not stop:
            number += 1
            path = await bench.save(one, PNG + b"%d" % number)
            if number % 2:
                await bench.post(one, path, **to(other))
            if number % 10 == 0:
                bench.clock.ms += 8 * 86_400_000
                await bench.sweep()

    living = asyncio.create_task(life())
    for number in range(5):
        await asyncio.sleep(0.02)
        name = shelf / f"{number}.tar"
        assert (await make(bench, name)).damaged == 0
        restored(name, tmp_path / str(number))
    stop = True
    await living
    await bench.sweep()
    assert len(bench.sql("SELECT * FROM file")) == len(bench.on_disk())


async def test_commits_go_on_during_the_copy(bench: Bench, shelf: Path) -> None:
    """A writer that never rests is not kept waiting, and lets the copy come to its end."""
    await filled(bench)
    job = Job("backup")
    before = bench.store.writer.batches

    async def write() -> None:
        while job.stage in ("", "copying"):
            await bench.friends()

    writing = asyncio.create_task(write())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pushd.store.live.PAGES", 1)
        await make(bench, shelf / "b.tar", job)
    await writing
    assert bench.store.writer.batches > before + 3


async def test_unfinished_uploads_are_left_out(bench: Bench, shelf: Path, tmp_path: Path) -> None:
    """Their bytes are in no backup, and so the restored store does not know them."""
    one = await bench.user()
    await bench.begun(one, PNG)
    await make(bench, shelf / "b.tar")
    restored(shelf / "b.tar", tmp_path / "new")
    assert sql(tmp_path / "new", "SELECT * FROM upload") == []


@pytest.mark.parametrize("damage", ["missing", "other", "short"])
async def test_a_damaged_file_is_named_and_left_out(
    bench: Bench, shelf: Path, tmp_path: Path, damage: str
) -> None:
    """One bad file does not prevent a backup of all others; the manifest names it."""
    path = await filled(bench)
    place = bench.folder / path
    if damage == "missing":
        place.unlink()
    else:
        place.write_bytes(PNG + (b"hallo" if damage == "other" else b""))
    manifest = await make(bench, shelf / "b.tar")
    assert (manifest.files, manifest.damaged, manifest.names) == (0, 1, [path])
    assert restored(shelf / "b.tar", tmp_path / "new").names == [path]


# --- what goes wrong ----------------------------------------------------------------------------


async def test_a_target_that_will_not_do_is_refused(bench: Bench, shelf: Path) -> None:
    """What exists is not overwritten, and a backup does not lie in what it is a copy of."""
    (shelf / "old").touch()
    for target, text in {
        Path("b.tar"): "not a whole path",
        shelf / "none" / "b.tar": "no such folder",
        bench.folder / "b.tar": "would be a copy of",
        shelf / "old": "exists",
    }.items():
        with pytest.raises(ArchiveError, match=text):
            await make(bench, target)
    assert os.listdir(shelf) == ["old"]


async def test_a_disk_without_the_space_is_not_filled(bench: Bench, shelf: Path) -> None:
    """What would take the server's last space does not begin."""
    with pytest.raises(ArchiveError, match="bytes free, has 1000"):
        await make(bench, shelf / "b.tar", free=lambda folder: 1000)
    assert os.listdir(shelf) == []


@pytest.mark.slow
@pytest.mark.parametrize(("size", "stage"), [("128k", "copying"), ("400k", "packing")])
async def test_a_disk_that_fills_up_leaves_nothing(
    bench: Bench, shelf: Path, size: str, stage: str
) -> None:
    """While the store is copied or packed, on a real disk; the server goes on."""
    await filled(bench)
    with small_disk(shelf, size):
        job = Job("backup")
        with pytest.raises(OSError, match="No space left on device"):
            await make(bench, shelf / "b.tar", job, free=lambda folder: 1 << 60)
        assert job.stage == stage
        assert os.listdir(shelf) == []
    await filled(bench)
    await make(bench, shelf / "b.tar")


@pytest.mark.parametrize("stage", ["copying", "checking", "packing"])
async def test_a_stopped_backup_leaves_nothing(bench: Bench, shelf: Path, stage: str) -> None:
    """At each stage; the server goes on, and the next backup is made."""
    await filled(bench)

    class Stopping(Job):
        def advance(self, done: int = 0) -> None:
            if self.stage == stage:
                self.stopping = True
            super().advance(done)

    with pytest.raises(Stopped):
        await make(bench, shelf / "b.tar", Stopping("backup"))
    assert os.listdir(shelf) == []
    await filled(bench)
    await make(bench, shelf / "b.tar")


async def test_what_a_killed_server_left_is_removed(bench: Bench, shelf: Path) -> None:
    """The parts beside a target are overwritten by the next backup."""
    (shelf / "b.tar.part").write_bytes(b"half")
    (shelf / "b.tar.part-db").write_bytes(b"half")
    await make(bench, shelf / "b.tar")
    assert os.listdir(shelf) == ["b.tar"]


async def test_files_go_again_after_a_backup(bench: Bench, shelf: Path) -> None:
    """A file whose row went during a backup stays for it, and is swept after it."""
    path = await filled(bench)
    with bench.media.holding():
        await bench.media.remove(path)
        assert path in bench.on_disk()
    await bench.media.remove(path)
    assert path not in bench.on_disk()


# --- archives that are none ---------------------------------------------------------------------


@pytest.fixture
async def good(bench: Bench, shelf: Path) -> dict[str, bytes]:
    """The entries of a sound archive."""
    await filled(bench)
    await make(bench, shelf / "good.tar")
    return entries(shelf / "good.tar")


def refused(source: Path, data: Path, text: str) -> None:
    """A restore is refused in one line and leaves nothing."""
    with pytest.raises(PushdError, match=text) as problem:
        restored(source, data)
    assert "\n" not in str(problem.value)
    assert not data.exists()


async def test_an_archive_cut_anywhere_is_refused(
    good: dict[str, bytes], shelf: Path, tmp_path: Path
) -> None:
    """At every length that is not the whole."""
    whole = (shelf / "good.tar").read_bytes()
    packed_ = gzip.compress(whole, 1)
    for data in (whole, packed_):
        marks = {0, 1, 100, 511, 512, 513, len(data) // 2, len(data) // 3}
        for length in sorted(marks | ({len(data) - 1} if data is packed_ else set())):
            (shelf / "cut").write_bytes(data[:length])
            refused(shelf / "cut", tmp_path / "new", ".")


async def test_an_archive_without_its_end_is_refused(
    good: dict[str, bytes], shelf: Path, tmp_path: Path
) -> None:
    """Cut between two entries it lacks its manifest."""
    del good["manifest.json"]
    refused(packed(shelf / "bad", good), tmp_path / "new", "cut off")


async def test_a_changed_byte_is_found(good: dict[str, bytes], shelf: Path, tmp_path: Path) -> None:
    """In the store and in a file; where it changes nothing that counts the hash still tells."""
    path = next(name for name in good if name.startswith("media/"))
    for name, text in {FILE: "manifest|damaged", path: "another content"}.items():
        data = bytearray(good[name])
        data[-1] ^= 1
        refused(packed(shelf / "bad", good | {name: bytes(data)}), tmp_path / "new", text)


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "media/../../evil", "media/aa/x", "x"])
async def test_names_lead_nowhere(
    good: dict[str, bytes], shelf: Path, tmp_path: Path, name: str
) -> None:
    """An entry with a name that no backup has is not written anywhere."""
    manifest = good.pop("manifest.json")
    parts = {**good, name: b"evil", "manifest.json": manifest}
    refused(packed(shelf / "bad", parts), tmp_path / "new", "no backup has")
    assert not any(path.endswith("evil") for path in tree(tmp_path))


async def test_links_are_refused(good: dict[str, bytes], shelf: Path, tmp_path: Path) -> None:
    """An entry that is no plain file is not even the first one of a backup."""
    source = packed(shelf / "bad", dict.fromkeys(good, b""), kind=tarfile.SYMTYPE)
    refused(source, tmp_path / "new", "no backup has")


async def test_a_file_the_store_does_not_know_is_refused(
    good: dict[str, bytes], shelf: Path, tmp_path: Path
) -> None:
    """All files are there, and no others; none comes twice."""
    path = next(name for name in good if name.startswith("media/"))
    stranger = f"media/ab/ab{'0' * 62}"
    manifest = good.pop("manifest.json")
    more = {**good, stranger: b"", "manifest.json": manifest}
    refused(packed(shelf / "bad", more), tmp_path / "new", "does not know")
    less = {FILE: good[FILE], "manifest.json": manifest}
    refused(packed(shelf / "bad", less), tmp_path / "new", "0 files instead of 1")
    with tarfile.open(shelf / "bad", "w") as tar:
        for name in (FILE, path, path):
            entry = tarfile.TarInfo(name)
            entry.size = len(good[name])
            tar.addfile(entry, io.BytesIO(good[name]))
    refused(shelf / "bad", tmp_path / "new", "twice")


async def test_foreign_archives_are_refused(
    good: dict[str, bytes], shelf: Path, tmp_path: Path
) -> None:
    """Other files, other tars, other databases, and what a newer pushd has made."""
    (shelf / "text").write_text("dear diary\n" * 200)
    refused(shelf / "text", tmp_path / "new", "not a whole backup")
    refused(shelf / "none", tmp_path / "new", "no such file")
    refused(packed(shelf / "bad", {"a.txt": b"x"}), tmp_path / "new", "not a backup")
    newer = json.loads(good["manifest.json"]) | {"version": 2}
    parts = good | {"manifest.json": json.dumps(newer).encode()}
    refused(packed(shelf / "bad", parts), tmp_path / "new", "newer pushd")
    parts = good | {"manifest.json": b"{}"}
    refused(packed(shelf / "bad", parts), tmp_path / "new", "cannot be read")
    for statement, text in {
        "PRAGMA user_version=99": "schema 99.*install a newer one",
        "PRAGMA user_version=0": "not one of pushd",
        "DELETE FROM account": "refers to a lost account",
    }.items():
        (shelf / "db").write_bytes(good[FILE])
        with closing(sqlite3.connect(shelf / "db")) as db, db:
            db.execute(statement)
        parts = good | {FILE: (shelf / "db").read_bytes()}
        refused(packed(shelf / "bad", parts), tmp_path / "new", text)


# --- where it is restored -----------------------------------------------------------------------


@pytest.mark.parametrize("left", [FILE, f"{FILE}-wal", f"{FILE}-shm", "media/x", "notes.txt"])
async def test_only_an_empty_folder_is_restored_to(
    good: dict[str, bytes], shelf: Path, tmp_path: Path, left: str
) -> None:
    """A log beside another store would spoil it, and nothing that is there is overwritten."""
    data = tmp_path / "used"
    (data / left).parent.mkdir(parents=True)
    (data / left).write_bytes(b"mine")
    with pytest.raises(ArchiveError, match=f"not empty .{left.partition('/')[0]}.: move it away"):
        restored(shelf / "good.tar", data)
    assert tree(data) == {left}


async def test_an_empty_folder_may_be_there(
    good: dict[str, bytes], shelf: Path, tmp_path: Path
) -> None:
    """Also with the lock that a server left; after a refusal it is as it was."""
    data = tmp_path / "empty"
    data.mkdir()
    with pytest.raises(ArchiveError):
        restored(shelf / "none", data)
    assert list(data.iterdir()) == []
    (data / LOCK).touch()
    restored(shelf / "good.tar", data)
    assert FILE in tree(data)


async def test_the_folder_of_a_running_server_is_refused(
    good: dict[str, bytes], shelf: Path, bench: Bench
) -> None:
    """Whatever is in it."""
    with pytest.raises(StoreRefused, match="another pushd uses this folder"):
        restored(shelf / "good.tar", bench.folder)
    await filled(bench)


class Killed(BaseException):
    """The process ends here; nothing is cleaned up."""


@pytest.mark.parametrize("point", ["extract", "renew", "move", "end"])
async def test_a_killed_restore_is_known_at_the_start(
    good: dict[str, bytes],
    shelf: Path,
    tmp_path: Path,
    point: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wherever it stopped, no server takes the folder for whole, and no other restore either."""
    monkeypatch.setattr(backup, "remove_tree", lambda folder: None)
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: None)
    calls: dict[str, tuple[Any, str]] = {
        "extract": (backup.Copy, "__init__"),
        "renew": (backup.Copy, "renew"),
        "move": (backup.os, "rename"),  # type: ignore[attr-defined]
        "end": (Path, "rmdir"),
    }
    with monkeypatch.context() as patch:
        patch.setattr(*calls[point], killing(calls[point], 1 if point == "move" else 0))
        with pytest.raises(Killed):
            restored(shelf / "good.tar", tmp_path / "new")
    data = tmp_path / "new"
    assert (data / RESTORING).exists()
    with pytest.raises(ArchiveError, match="did not end: remove this folder"):
        restored(shelf / "good.tar", data)
    with pytest.raises(StoreRefused, match="a restore did not end here"):
        await Bench(data).open()


def killing(call: tuple[Any, str], after: int) -> Callable[..., Any]:
    """Make a function that ends the process at some call."""
    known = getattr(*call)
    left = after

    def function(*args: Any, **kw: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return known(*args, **kw)

    return function


# --- jobs ---------------------------------------------------------------------------------------


async def test_one_job_runs_at_a_time() -> None:
    """The next one is refused until it has ended, and the last one can still be looked at."""
    jobs = Jobs()
    gate = asyncio.Event()

    async def wait(job: Job) -> None:
        await gate.wait()
        job.advance()

    jobs.start("backup", wait)
    with pytest.raises(Refusal, match="a backup is running"):
        jobs.start("check", wait)
    assert jobs.look().state == "running"
    jobs.cancel()
    gate.set()
    await jobs.close()
    assert (jobs.look().state, jobs.look().name) == ("stopped", "backup")
    jobs.start("check", wait)
    await jobs.close()


async def test_a_job_that_fails_says_why_in_one_line() -> None:
    """Errors of the disk and of pushd are told; others only in the log."""
    jobs = Jobs()
    for problem, text in (
        (OSError(28, "No space left on device", "/x"), "/x: No space left on device"),
        (ArchiveError("a\nb"), "a b"),
        (ValueError("secret"), "an internal error, see the log"),
    ):

        async def fail(job: Job, problem: Exception = problem) -> None:
            raise problem

        jobs.start("backup", fail)
        await asyncio.sleep(0)
        await jobs.close()
        assert (jobs.look().state, jobs.look().problem) == ("failed", text)
