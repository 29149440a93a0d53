"""When descriptors are used up the store has its own; the figures are those of the long run."""

import pytest

from tests.net import descriptors
from tests.net.descriptors import Shortage, control, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "SAMPLES", 5)


async def test_a_backup_while_full() -> None:
    """While clients wait for a descriptor, an upload and a backup have theirs."""
    with running() as server:
        shortage = Shortage(server)
        await shortage.fill(0.5)
        shortage.close()
    assert not shortage.problems


async def test_a_server_that_spins_is_caught() -> None:
    """Control: where accepting does not pause, the processor does not rest."""
    assert await control(1)
