"""The short form of the long run, and that its figures would tell."""

import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conformance.operated import Operated
from tests.soak.figures import MIB, Bars, Sample, judge, slope
from tests.soak.soak import Plan, soak

SAMPLE = Sample(
    at=0.0,
    life=0,
    age=0.0,
    memory=30 * MIB,
    resident=50 * MIB,
    files=20,
    tasks=10,
    threads=8,
    wal=16 * MIB,
    store=MIB,
    log=0,
    answered=100,
    p50=0.002,
    p99=0.010,
    lag=0.001,
    own_lag=0.001,
    held=False,
)


def run(**growth: float) -> list[Sample]:
    """Samples of an hour with three lives, in which some figures grow by so much an hour."""
    found = []
    for number in range(360):
        at = number * 10.0
        life, age = divmod(at, 1200.0)
        grown = {
            # What belongs to the process begins anew with a life, the rest does not.
            name: getattr(SAMPLE, name) + rate * (at if name in ("p99", "wal") else age) / 3600
            for name, rate in growth.items()
        }
        # Caches fill in the first minutes of a life, and each life has its own level.
        memory = grown.pop("memory", SAMPLE.memory) + min(age, 200) * 20_000 + life * MIB
        found.append(replace(SAMPLE, at=at, life=int(life), age=age, memory=memory, **grown))
    return found


def failed(samples: list[Sample]) -> list[str]:
    return [one.name for one in judge(samples, 300.0, 4, Bars()) if not one.holds]


def test_a_server_that_stays_as_it_was() -> None:
    """Warming up and being started anew are no growth."""
    assert failed(run()) == []
    assert failed(run(memory=0.9 * MIB, p99=0.0005)) == []


@pytest.mark.parametrize(
    ("growth", "name"),
    [
        ({"memory": 3 * MIB}, "memory"),
        ({"files": 20.0}, "descriptors"),
        ({"tasks": 20.0}, "tasks"),
        ({"threads": 40.0}, "threads"),
        ({"wal": 64 * MIB}, "write-ahead log"),
        ({"p99": 0.01}, "p99 of confirmations"),
    ],
)
def test_growth_is_found(growth: dict[str, float], name: str) -> None:
    """Each figure that grows through the lives fails its own bar, and no other one."""
    assert failed(run(**growth)) == [name]


def test_the_slope_is_one_for_all_lives() -> None:
    """Levels that differ between lives do not count."""
    warm = [one for one in run(memory=6 * MIB) if one.age > 300]
    assert slope(warm, lambda one: one.memory / MIB) == pytest.approx(6.0)


def test_a_held_log_may_grow() -> None:
    """While somebody holds a read transaction the log cannot shrink; afterwards it must."""
    held = [replace(one, wal=900 * MIB, held=True) for one in run()[100:160]]
    assert failed(run()[:100] + held + run()[160:]) == []
    late = [replace(one, held=False) for one in held]
    assert failed(run()[:100] + late + run()[160:]) == ["write-ahead log"]


COUNTING = """
import gc, signal, sys
gc.disable()
def tell(*_):
    from pushd.connection import Connection
    count = sum(isinstance(one, Connection) for one in gc.get_objects())
    print(f"connections={count}", file=sys.stderr, flush=True)
signal.signal(signal.SIGWINCH, tell)
from pushd.cli import pushd
pushd(prog_name="pushd")
"""


@pytest.mark.slow
async def test_what_is_closed_is_freed(tmp_path: Path) -> None:
    """A connection that is gone stays in no table and in no cycle: no collector is needed."""
    own = Operated(tmp_path, "", program=COUNTING, limits_drain=0)
    own.start()
    try:
        a, _ = await own.dial.pair()
        phone = await own.dial.user(started=True)
        for _ in range(50):
            phone.close()
            phone, _ = await own.dial.resume(phone.push_id, heartbeat=30)
            await phone.fence()
        counts = [60]
        for _ in range(100):
            own.signal(signal.SIGWINCH)
            await a.fence()
            counts += [int(found) for found in re.findall(r"connections=(\d+)", own.log_text())]
            if counts[-1] <= 5:
                break
        assert counts[-1] <= 5, counts
    finally:
        own.dial.close()
        own.kill()


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_short_run(tmp_path: Path) -> None:
    """Phones come and go, the server is killed, and nothing is lost, doubled or out of order."""
    outcome = await soak(Plan(3.0, 20, 100.0, 20.0), 1, tmp_path)
    totals = outcome.soak.totals
    assert not totals.report.violations, f"{outcome}"
    assert totals.kills >= 1
    assert totals.report.confirmed > 50
    assert totals.windows > 2
    assert totals.ends


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_lossy_server_is_found(tmp_path: Path) -> None:
    """Control: a server that forgets one of 300 messages."""
    outcome = await soak(Plan(2.0, 10, 500.0), 1, tmp_path, "loses_messages")
    assert any(one.startswith("I1") for one in outcome.violations), f"{outcome}"
