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


def test_a_rest_is_as_long_as_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others get the machine for the same time, within a bound; a rest itself does not count."""
    now, rests = [0.0], list[float]()

    def work(seconds: float) -> None:
        now[0] += seconds

    def rest(seconds: float) -> None:
        rests.append(seconds)
        work(seconds)

    monkeypatch.setattr(os, "fdatasync", lambda _: work(0.02))
    monkeypatch.setattr(steady.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(steady.time, "sleep", rest)
    file = Steady(7)
    for seconds in (0.01, 0.03, 5.0):
        work(seconds)
        file.wrote(STEP)
    assert rests == pytest.approx([0.03, 0.05, steady.LONGEST])


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
