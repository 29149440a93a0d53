"""No confirmed message or file is lost by a power cut, and this is a test that would tell."""

import multiprocessing
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from tests.disk.files import Change, Disk, Node, Write, content_of, survivors, torn
from tests.disk.powercut import Examiner, Replay, Totals, check_images, recorded
from tests.disk.traced import Call, obstacle, read

IMAGES = 12
STEPS = 6


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as found:
        yield found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Call]]:
    """The folder and the calls of a run."""
    if missing := obstacle():
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("run")
    return folder, recorded(folder, seed=3, steps=STEPS)


def examined(folder: Path, calls: list[Call], scratch: Path, pool: ProcessPoolExecutor) -> Totals:
    totals = Totals()
    replay = Replay(folder, calls)
    examiner = Examiner(pool, totals, "test")
    check_images(replay, examiner, scratch, IMAGES, random.Random(3))
    return totals


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_power_cut_takes_nothing_that_was_confirmed(
    run: tuple[Path, list[Call]], tmp_path: Path, pool: ProcessPoolExecutor
) -> None:
    """Whatever of the unsynced writes is there, the store is sound and knows all it confirmed."""
    totals = examined(*run, tmp_path, pool)
    assert totals.violations == []
    assert totals.images == IMAGES
    assert totals.messages > 10
    assert totals.files > 0
    assert totals.confirmed > 100


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_syncs_that_do_nothing_are_caught(
    run: tuple[Path, list[Call]], tmp_path: Path, pool: ProcessPoolExecutor
) -> None:
    """Control: the same run on a disk that ignores syncs loses much."""
    folder, calls = run
    ignored = [call for call in calls if call.name not in ("fsync", "fdatasync")]
    totals = examined(folder, ignored, tmp_path, pool)
    assert totals.bad > IMAGES // 2
    assert any("order" in violation for violation in totals.violations)


def call(name: str, at: int, *strings: bytes, fd: int = -1, **more: object) -> Call:
    whole = Call(name, fd, "", list(strings), [], 0, at, at, "", False)
    return whole._replace(**more)


def written(*calls: Call) -> Disk:
    disk = Disk(Path("/r"))
    for each in sorted(calls, key=lambda each: each.begin):
        disk.begin(each)
        disk.finish(each)
    return disk


def opened(path: bytes, fd: int, at: int) -> Call:
    return call("openat", at, path, result=fd, flags="O_CREAT")


def image(disk: Disk, folder: Path, mode: str) -> dict[str, bytes]:
    folder.mkdir()
    disk.image(folder, mode, random.Random(1))  # type: ignore[arg-type]
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_only_what_was_synced_is_certain(tmp_path: Path) -> None:
    """A file's content and its name are two things, each with a sync of its own."""
    new = [opened(b"/r/a", 5, 1), call("write", 2, b"one", fd=5, result=3)]
    synced = call("fsync", 3, fd=5)
    folder = [call("openat", 4, b"/r", result=6), call("fsync", 5, fd=6)]
    later = call("write", 6, b"two", fd=5, result=3)
    assert image(written(*new, synced), tmp_path / "1", "none") == {}
    assert image(written(*new, synced), tmp_path / "2", "all") == {"a": b"one"}
    assert image(written(*new, *folder), tmp_path / "3", "none") == {"a": b""}
    disk = written(*new, synced, *folder, later)
    assert image(disk, tmp_path / "4", "none") == {"a": b"one"}
    assert image(disk, tmp_path / "5", "all") == {"a": b"onetwo"}


def test_a_rename_is_there_or_not(tmp_path: Path) -> None:
    """Within a folder a renamed file has one of its two names, and what it replaced is there."""
    files = [opened(b"/r/a", 5, 1), opened(b"/r/b", 6, 2), call("write", 3, b"b", fd=6, result=1)]
    syncs = [
        call("fsync", 4, fd=6),
        call("openat", 5, b"/r", result=7),
        call("fsync", 6, fd=7),
    ]
    disk = written(*files, *syncs, call("rename", 7, b"/r/b", b"/r/a"))
    assert image(disk, tmp_path / "1", "none") == {"a": b"", "b": b"b"}
    assert image(disk, tmp_path / "2", "all") == {"a": b"b"}


def test_an_unlink_without_a_sync_of_the_folder_may_be_undone(tmp_path: Path) -> None:
    """What was removed comes back with its content, such as a journal of SQLite's."""
    folder = [call("openat", 3, b"/r", result=6), call("fsync", 4, fd=6)]
    disk = written(opened(b"/r/a", 5, 1), *folder, call("unlink", 5, b"/r/a"))
    assert image(disk, tmp_path / "1", "none") == {"a": b""}
    assert image(disk, tmp_path / "2", "all") == {}


def test_a_sync_covers_what_had_ended_when_it_began() -> None:
    """A write beside it may be lost."""
    disk = written(opened(b"/r/a", 5, 1))
    write = call("pwrite64", 2, b"x", fd=5, result=1, numbers=[1, 0], end=9)
    disk.begin(write)
    disk.finish(call("fsync", 3, fd=5, end=4))
    node = disk._known["/r/a"]
    assert (bytes(node.content), len(node.pending)) == (b"", 1)


def test_a_torn_write_leaves_whole_sectors() -> None:
    """Each 512 bytes of a write are there or not, by their place in the file."""
    write = Write(1, 500, bytes(range(256)) * 8)
    kept = [piece for seed in range(20) for piece in torn(write, random.Random(seed))]
    assert {piece.offset % 512 for piece in kept} == {0, 500 % 512}
    assert {len(piece.data or b"") for piece in kept} == {12, 512, (500 + 2048) % 512}


def test_any_of_the_changes_may_survive() -> None:
    """Of two writes each combination comes up, the later one without the earlier one too."""
    writes: list[Write | Change] = [Write(1, 0, b"a"), Write(2, 1, b"b")]
    found = {len(survivors(writes, "any", random.Random(seed))) for seed in range(20)}
    assert found == {0, 1, 2}
    node = Node(folder=False)
    node.pending = writes
    contents = {content_of(node, "any", random.Random(seed)) for seed in range(50)}
    assert contents == {b"", b"a", b"ab", b"\0b"}


def test_a_trace_is_read() -> None:
    """Calls that were interrupted, hex, descriptors with their files, and injected errors."""
    lines = [
        '7 pwrite64(3<\\x2f\\x61>, "\\x61\\x62", 2, 4096 <unfinished ...>\n',
        '8 openat(AT_FDCWD, "\\x2f\\x61", O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 4<\\x2f\\x61>\n',
        "7 <... pwrite64 resumed>)           = 2\n",
        "8 fdatasync(4<\\x2f\\x61>) = -1 EIO (Input/output error) (INJECTED)\n",
        '9 sendto(5<\\x73>, "\\x61"..., 1 <unfinished ...>\n',
        "7 +++ killed by SIGKILL +++\n",
    ]
    found, count = read(iter(lines), 10)
    assert count == len(lines)
    write, open_, sync, sent = found
    assert (write.name, write.fd, write.what, write.strings) == ("pwrite64", 3, "/a", [b"ab"])
    assert (write.begin, write.end, write.numbers[-1], write.result) == (10, 12, 4096, 2)
    assert (open_.result, open_.strings, "O_CREAT" in open_.flags) == (4, [b"/a"], True)
    assert (sync.result, sync.injected) == (-1, True)
    assert (sent.name, sent.begin, sent.strings) == ("sendto", 14, [b"a"])
    assert sent.end > 10**9
