"""A client whose network is gone is reaped in time; the figures are those of the long run."""

import pytest

from tests.net.half_open import control, crowd, cut_off, running
from tests.net.namespace import Namespace, Unavailable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

# Of so short a time a sweep is a large part.
LOOSE = 0.8


async def test_a_lost_network() -> None:
    """A client whose cable is out goes offline in time, and gets all that it had not acked."""
    with running(host="0.0.0.0") as server:
        friend = await crowd(server, 3)
        try:
            with Namespace() as there:
                outcome = await cut_off(server, friend, there, "pull", 1, LOOSE)
        except Unavailable as why:
            pytest.skip(str(why))
    assert not outcome.problems
    assert len(outcome.ends) == 3


async def test_a_server_that_reaps_nobody_is_caught() -> None:
    """Control: where silence ends no connection, its client stays online."""
    assert any("still online" in problem for problem in await control())
