"""The reserve: space on the disk that is given up when it is full, and taken back."""

import errno
import os
from pathlib import Path

import pytest

from pushd.store.reserve import PAUSE, Reserve

SIZE = 100_000


class Disk:
    """A disk that can be full, and the clock beside it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = folder / "reserve"
        self.time = 1000.0
        self.full = False
        self.tries = 0
        allocate = os.posix_fallocate

        def fallocate(file: int, start: int, size: int) -> None:
            self.tries += 1
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            allocate(file, start, size)

        monkeypatch.setattr(os, "posix_fallocate", fallocate)

    def reserve(self, size: int = SIZE) -> Reserve:
        return Reserve(self.path, size, lambda: self.time)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(tmp_path, monkeypatch)


def test_space_is_really_set_aside(disk: Disk) -> None:
    """The file has its size in blocks of the disk, not as a hole; again changes nothing."""
    reserve = disk.reserve()
    for _ in range(2):
        assert reserve.refill()
        assert not reserve.spent
        assert disk.path.stat().st_size == SIZE
        assert disk.path.stat().st_blocks * 512 >= SIZE


def test_spending_gives_the_space_up(disk: Disk) -> None:
    """The file is gone at once; a second time there is nothing to give, and no error."""
    reserve = disk.reserve()
    reserve.refill()
    for _ in range(2):
        reserve.spend()
        assert reserve.spent
        assert not disk.path.exists()


def test_it_is_taken_back_by_itself_and_tried_once_a_second(disk: Disk) -> None:
    """While the disk is full refilling fails and is not tried at every call; later it succeeds."""
    reserve = disk.reserve()
    reserve.refill()
    reserve.spend()
    disk.full, disk.tries = True, 0
    assert not reserve.refill()
    assert disk.tries == 0
    for _ in range(3):
        disk.time += PAUSE
        assert [reserve.refill() for _ in range(5)] == [False] * 5
    assert disk.tries == 3
    disk.full = False
    disk.time += PAUSE
    assert reserve.refill()
    assert not reserve.spent
    assert disk.path.stat().st_size == SIZE


def test_half_a_file_is_not_left_behind(disk: Disk) -> None:
    """What could not be set aside whole takes no space from those who need it."""
    disk.full = True
    reserve = disk.reserve()
    assert not reserve.refill()
    assert reserve.spent
    assert not disk.path.exists()


def test_what_cannot_be_written_is_like_a_full_disk(disk: Disk) -> None:
    """When the file can be neither made nor removed the reserve is spent, and nothing is raised."""
    disk.path.mkdir()
    reserve = disk.reserve()
    assert not reserve.refill()
    assert reserve.spent
    reserve.spend()


def test_without_a_size_nothing_is_kept(disk: Disk) -> None:
    """Size 0 turns it off: no file, and refilling succeeds as soon as the pause is over."""
    reserve = disk.reserve(0)
    assert reserve.refill()
    assert not disk.path.exists()
    reserve.spend()
    assert not reserve.refill()
    disk.time += PAUSE
    assert reserve.refill()
    assert disk.tries == 0
