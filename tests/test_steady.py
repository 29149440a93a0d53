"""Large files beside a store that syncs: never much of them at once."""

import os
from pathlib import Path

import pytest

from pushd import steady
from pushd.steady import CUT, STEP, Steady, remove


def test_syncs_come_while_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than a step is dirty at any time, in whatever pieces it comes."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    monkeypatch.setattr(steady.time, "sleep", lambda seconds: None)
    file = Steady(7)
    for _ in range(32):
        file.wrote(STEP // 8)
    assert synced == [7] * 4
    file.wrote(9 * STEP)
    assert synced == [7] * 5


def test_a_rest_is_as_long_as_the_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others get the disk for the same time, within a bound."""
    now, rests = [0.0], list[float]()
    took = iter([0.03, 5.0])

    def sync(_: int) -> None:
        now[0] += next(took)

    monkeypatch.setattr(os, "fdatasync", sync)
    monkeypatch.setattr(steady.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(steady.time, "sleep", rests.append)
    for _ in range(2):
        Steady(7).wrote(STEP)
    assert rests == pytest.approx([0.03, steady.LONGEST])


def test_a_file_goes_bit_by_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cut from its end, and then removed."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(3 * CUT + 5)
    sizes: list[int] = []
    monkeypatch.setattr(steady.time, "sleep", lambda seconds: sizes.append(path.stat().st_size))
    remove(path)
    assert sizes == [2 * CUT + 5, CUT + 5, 5]
    assert not path.exists()


def test_what_is_not_there_or_no_file(tmp_path: Path) -> None:
    """Nothing is raised: a removal is the last thing that is done."""
    remove(tmp_path / "nothing")
    remove(tmp_path)
    assert tmp_path.exists()
