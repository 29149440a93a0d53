"""Our own library keeps its promises on a bad network, and these are tests that would tell."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.process import Process
from tests.net.library import campaign, forgetful

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ROUNDS_OF_CONTROL = 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Process]:
    own = Process(tmp_path)
    own.start()
    yield own
    own.kill()
    assert "Traceback" not in own.log_text()


async def test_what_users_see(server: Process) -> None:
    """What was confirmed comes once and in order, however often connections and processes end."""
    counts, violations = await campaign(1, random.randrange(1 << 32), server)
    assert not violations
    assert counts["connections broken"]


async def test_a_forgetful_library_is_caught(server: Process) -> None:
    """Control: a library that does not know what its user has had gives it twice."""
    with forgetful():
        _, violations = await campaign(ROUNDS_OF_CONTROL, random.randrange(1 << 32), server)
    assert any("I3" in violation for violation in violations)
