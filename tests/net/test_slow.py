"""Clients that do not read cost a bounded memory; the figures are those of the long run."""

import pytest

from tests.net import slow

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


async def test_a_few_slow_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who takes nothing is closed, what it took is given back, and its messages are all there."""
    monkeypatch.setattr(slow, "WRITE_TIMEOUT", 2)
    monkeypatch.setattr(slow, "SAMPLES", 10)
    with slow.running() as server:
        figures = await slow.measure(server, 3, 300)
    # Times are for a quiet machine.
    assert not [problem for problem in figures.problems if "p99" not in problem]
    assert figures.closed == 3
