"""The fuzzing targets by themselves: sound lines of everything, odd lines, and a short run."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pushd.commands import Needs
from tests.fuzz import bugs, heavy, run, seeds, targets
from tests.fuzz.core import LEFT_OUT, Broken, World, judged


@pytest.fixture
def core() -> Iterator[targets.Core]:
    """A target that leaves nothing behind."""
    found = targets.Core()
    yield found
    found.end()


@pytest.fixture(scope="module")
def inputs() -> list[bytes]:
    """What fuzzing starts from."""
    with World() as world:
        return list(seeds.seeds(targets.TABLE, world.known))


def test_seeds_of_everything(inputs: list[bytes]) -> None:
    """Each command of the table has a seed, and the corpus stays small."""
    text = b"".join(inputs)
    assert all(f'"cmd": "{name}"'.encode() in text for name in targets.TABLE)
    assert len(text) < 200_000


def test_what_nobody_asks_for_is_not_made_into_values() -> None:
    """A refused line of many arrays takes less time than reading it takes."""
    line = heavy.full(b'{"message":7,"x":[%b]}', b"[" * 20 + b"]" * 20, 300_000)

    def taken(work: Callable[[bytes], object]) -> float:
        begin = time.perf_counter()
        work(line)
        return time.perf_counter() - begin

    ours = min(taken(targets.decode_only) for _ in range(5))
    assert ours < min(taken(json.loads) for _ in range(5)) / 2


def test_lines_of_all_seeds(inputs: list[bytes]) -> None:
    """No seed breaks the decoder."""
    for seed in inputs:
        targets.lines(seed)


@pytest.mark.slow
def test_core_of_all_seeds(inputs: list[bytes], core: targets.Core) -> None:
    """No seed breaks the server, and what its connections had is given back."""
    for seed in inputs:
        core(seed)
    assert core.world is not None
    core.world.audit()


def test_sound_seeds_are_taken() -> None:
    """The seeds reach the handlers: few are refused for how they look."""
    with World() as world:
        refused = []
        for row in targets.TABLE.values():
            if row.needs is Needs.SESSION and row.name not in LEFT_OUT:
                line = seeds.encode({"cmd": row.name, **seeds.request(row, world.known)})
                who = targets.before(world, "a user")
                replies = world.exchange([who, line])
                if replies[0]["status"] != 1:
                    break  # the account was deleted by the line before
                if replies[-1]["status"] in (4000, 4003):
                    refused.append(row.name)
        assert len(refused) < 8, refused


def test_the_judge() -> None:
    """What no server may say is told apart from what it may."""
    assert judged(b'{"status":4003,"message":"no","field":"x"}\n{"status":1,"message":""}\n')
    for line in (
        b'{"status":1}',
        b'{"status":5000,"message":"internal error 1"}\n',
        b'{"status":4003,"message":"no"}\n',
        b'{"status":4004,"message":"ok"}\n',
        b"[]\n",
        b'{"status":1\n',
        '{"status":1,"message":"\u2028"}\n'.encode(),
    ):
        with pytest.raises(Broken):
            judged(line)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(not run.available(), reason="atheris is not installed (the extra fuzz)")
@pytest.mark.parametrize("target", run.TARGETS)
def test_short_run(target: str, tmp_path: Path) -> None:
    """A few seconds of fuzzing find nothing, and reach more than the seeds do."""
    words = run.plant(tmp_path / target / "corpus")
    outcome = run.fuzz(target, 3, tmp_path / target / "corpus", words)
    assert not outcome.problem, outcome.problem
    assert outcome.executions > 100


def test_the_bugs_fit_the_code() -> None:
    """Each bug that the tools must find can still be put into the code."""
    for bug in bugs.BUGS:
        assert bugs.broken(bug).count(bug.wrong)
