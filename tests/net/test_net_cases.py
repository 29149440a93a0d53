"""Breaks and retries at a few random points; the long run has many."""

import random

import pytest

from tests.net.cases import breaks, retries, running, tried
from tests.net.variants import FORGETFUL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


async def test_retries() -> None:
    """A frame that is sent again is one message, whatever came between."""
    with running() as server:
        await breaks(server, "vanish", 2, random.Random())
        await retries(server)


async def test_a_server_without_client_ids_is_caught() -> None:
    """Control: where no clientId is known, a retry is another message."""
    with running(FORGETFUL) as server:
        assert not (await tried(lambda: retries(server))).isdigit()
