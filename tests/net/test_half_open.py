"""A client whose network is gone is reaped in time; the figures are those of the long run."""

import asyncio

import pytest

from tests.conformance.wire import Wire, befriend, content, frame
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


async def test_a_first_device_that_never_heard_its_push_id() -> None:
    """What waits for an account is not kept by a device whose `start` was answered into nothing."""
    with running(host="0.0.0.0") as server:
        a, b = await server.dial.user(), await server.dial.user()
        await befriend(a, b)
        await a.say(b.user_id, "x")
        try:
            with Namespace() as there:
                sock = there.socket()
                address = (there.host, server.address[1])
                await asyncio.get_running_loop().sock_connect(sock, address)
                lost = Wire(sock)
                await lost.login(b.phone)
                there.mute()
                await lost.send_line(frame("start"))
                while not await b.ok("devices"):
                    pass
                # Until the server's machine has sent the answer again.
                await asyncio.sleep(1)
                reply = await b.start()
                lost.close()
        except Unavailable as why:
            pytest.skip(str(why))
        got = await b.take(reply["queued"])
        assert "x" in [content(each) for each in got]


async def test_a_server_that_reaps_nobody_is_caught() -> None:
    """Control: where silence ends no connection, its client stays online."""
    assert any("still online" in problem for problem in await control())
