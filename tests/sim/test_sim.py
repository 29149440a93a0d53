"""The simulation in short: seeds find nothing, go the same way twice, and find bugs."""

from pathlib import Path
from random import Random

import pytest

from tests.sim.bugs import BUGS, broken, find
from tests.sim.disk import HEAD, SECTOR, Disk
from tests.sim.points import ACTIVE, FAULTS, PATHS, Points, install
from tests.sim.world import run

SEEDS = range(1, 8)
SAME = (8, 9)
# Two that the first seeds find, in the outbox and in the store.
SHORT = ("ack_takes_all", "copies_forgotten")


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_finds_no_violation(seed: int) -> None:
    """Whatever the seed does to disk, network and clock, all that was promised is kept."""
    outcome = run(seed)
    assert outcome.violations == []
    assert outcome.report.confirmed and outcome.report.delivered
    assert outcome.seconds > 10 * outcome.real


@pytest.mark.slow
@pytest.mark.parametrize("seed", SAME)
def test_a_seed_goes_the_same_way_twice(seed: int) -> None:
    """A seed and a commit are a run: the log of the second is that of the first."""
    assert run(seed).digest == run(seed).digest


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_a_bug_is_found(name: str) -> None:
    """Control: a server that breaks a promise does not pass."""
    [bug] = [bug for bug in BUGS if bug.name == name]
    seed, violation = find(bug, range(1, 31))
    assert seed, f"{bug.breaks}, and no seed found it"
    assert violation.startswith("I")


def test_the_bugs_fit_the_code() -> None:
    """Each bug changes a text that stands in its module, once."""
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 20
    for bug in BUGS:
        assert broken(bug) != ""


def test_a_torn_log_has_the_head_of_its_frames(tmp_path: Path) -> None:
    """SQLite syncs the head of a log that begins anew first; all behind it may be of both."""
    disk = Disk(tmp_path, Random(1), Points(Random(1)))
    old, new = b"o" * 4 * SECTOR, b"n" * 4 * SECTOR
    torn = [disk._tear(old, new) for _ in range(100)]
    assert {one[:HEAD] for one in torn} == {new[:HEAD]}
    for start in (HEAD, SECTOR, 3 * SECTOR):
        assert {one[start : start + 1] for one in torn} == {b"o", b"n"}


def test_points_are_named_once() -> None:
    """A point is a fault or a path, and there are many of each."""
    assert not FAULTS.keys() & PATHS.keys()
    assert len(FAULTS) >= 20


def test_nothing_is_hit_outside_of_a_run() -> None:
    """The points around the server's methods do nothing while no run is under way."""
    install()
    assert ACTIVE == []


def test_a_point_that_is_off_is_never_hit() -> None:
    """A quarter of the faults is on; the others never happen."""

    class Always:
        def random(self) -> float:
            return 0.0

    points = Points(Always())  # type: ignore[arg-type]
    assert all(points.hit(name) for name in FAULTS)
    points.on["power_cut"] = False
    assert not points.hit("power_cut", 1.0)
    points.quiet = True
    assert not any(points.hit(name, 1.0) for name in FAULTS)
