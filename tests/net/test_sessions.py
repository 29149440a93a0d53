"""On a bad network nothing is lost, doubled or out of order; and tests that would tell."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.process import Process
from tests.net.sessions import anything, control, lose_replies, run, summary

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Process]:
    own = Process(tmp_path)
    own.start()
    yield own
    own.kill()
    assert "Traceback" not in own.log_text()


async def test_bad_networks(server: Process) -> None:
    """Late, sliced, silent, reset or half closed: the invariants hold once the network is good."""
    seed = random.randrange(1 << 32)
    totals = await run(server, anything, seed, lambda t: t.sessions >= 6)
    assert not totals.report.violations, summary(f"seed {seed}", totals)
    assert totals.hits
    assert totals.report.sent > totals.report.confirmed > 50


async def test_lost_confirmations(server: Process) -> None:
    """A message whose confirmation was lost is sent again and stored once."""
    totals = await lose_replies(server, 20, random.randrange(1 << 32))
    assert not totals.report.violations, summary("lost", totals)
    assert totals.hits["swallowed"] >= 20


async def test_a_server_without_client_ids_is_caught(tmp_path: Path) -> None:
    """Control: where no clientId is known, lost confirmations double messages."""
    report = await control(tmp_path, random.randrange(1 << 32))
    assert {violation.split(": ")[1] for violation in report.violations} & {"I2", "I3"}
