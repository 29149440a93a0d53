"""Section 2, silence: which signs of life count, and who is closed when there are none."""

import time

import pytest

from .process import StartServer
from .wire import Closed, Wire, text


def assert_late(due: float, took: float) -> None:
    """Require a time-out when it was due, or little later.

    A sweep over all connections may be as coarse as a tenth of the shortest real time-out
    (45 s); a test that waits 1.5 s has to allow for a part of that.
    """
    assert due - 0.2 < took < due + 1.7, f"due after {due:.1f} s, closed after {took:.1f} s"


class TestSilence:
    """A connection is closed after 1.5 x its heartbeat without a complete line."""

    @pytest.mark.parametrize(("loop", "heartbeat"), [("uvloop", 4), ("asyncio", 1)])
    async def test_closed_after_one_and_a_half(
        self, server: StartServer, loop: str, heartbeat: int
    ) -> None:
        """The server never pings; it closes after 1.5 x `heartbeat`."""
        own = server(loop=loop, limits_heartbeat_min=1)
        wire = await own.dial.user()
        began = time.monotonic()
        reply = await wire.start(heartbeat=heartbeat)
        assert reply["heartbeat"] == heartbeat
        await wire.rest()
        assert_late(1.5 * heartbeat, time.monotonic() - began)

    async def test_many_restarts_do_not_stretch_it(self, server: StartServer) -> None:
        """The time-out after a hundred restarts is that after the first."""
        own = server(limits_heartbeat_min=1)
        wire = await own.dial.user(started=True)
        for _ in range(100):
            began = time.monotonic()
            again, _ = await own.dial.resume(wire.push_id, heartbeat=1)
        await again.rest()
        assert_late(1.5, time.monotonic() - began)

    async def test_lines_are_life_and_nothing_else(self, server: StartServer) -> None:
        """Blank lines and frames keep it; half lines and what the server writes do not."""
        own = server(limits_heartbeat_min=1)
        a, b = await own.dial.pair()
        blank, drip = await own.dial.user(), await own.dial.user()
        for wire in (blank, drip):
            await wire.start(heartbeat=1)
        receiver, _ = await own.dial.resume(b.push_id, heartbeat=1)
        began = time.monotonic()
        ends: dict[str, float] = {}
        while time.monotonic() - began < 4:
            await _tick(0.25, a)
            await blank.send_raw(b"\n")
            for name, wire in (("drip", drip), ("receiver", receiver)):
                if name not in ends and await _has_ended(wire):
                    ends[name] = time.monotonic() - began
            if "drip" not in ends:
                await drip.send_raw(b"x")
            await a.say(b.user_id, "written by the server")
        await blank.fence()
        assert set(ends) == {"drip", "receiver"}
        for end in ends.values():
            assert_late(1.5, end)
        queued = (await own.dial.resume(b.push_id))[1]["queued"]
        assert queued >= 10

    async def test_a_long_line_that_grows(self, server: StartServer) -> None:
        """While a long line grows by 1 KiB a second or more, the deadline moves."""
        own = server(limits_heartbeat_min=1)
        wire = await own.dial.user()
        watch = await own.dial.user()
        await wire.start(heartbeat=1)
        began = time.monotonic()
        await wire.send_raw(b'{"cmd":"ping","pad":"')
        while time.monotonic() - began < 4:
            await wire.send_raw(b"x" * 4096)
            await _tick(0.25, watch)
        await wire.send_raw(b'"}\n')
        assert (await wire.reply())["status"] == 1

    async def test_a_long_line_not_for_ever(self, server: StartServer) -> None:
        """A line that grows is life for a bounded time only."""
        own = server(limits_heartbeat_min=1, limits_long_line_total=2)
        wire = await own.dial.user()
        watch = await own.dial.user()
        await wire.start(heartbeat=1)
        began = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - began < 12:
                await wire.send_raw(b"x" * 4096)
                await _tick(0.25, watch)
        assert time.monotonic() - began > 1.3

    async def test_without_a_session(self, server: StartServer) -> None:
        """Without a session it is closed after the login time without a line."""
        own = server(limits_login_idle=1)
        wire = await own.dial()
        began = time.monotonic()
        await wire.rest()
        assert_late(1, time.monotonic() - began)
        drip = await own.dial()
        await drip.send_raw(b'{"cmd":')
        began = time.monotonic()
        await drip.rest()
        assert_late(1, time.monotonic() - began)

    async def test_without_a_session_in_all(self, server: StartServer) -> None:
        """Without a session it is closed after its time in all, whatever it says."""
        own = server(limits_login_idle=2, limits_login_total=2)
        wire = await own.dial()
        watch = await own.dial.user()
        began = time.monotonic()
        ended = 0.0
        while not ended and time.monotonic() - began < 6:
            await _tick(0.2, watch)
            try:
                await wire.exchange({"cmd": "ping"})
            except (Closed, OSError):
                ended = time.monotonic() - began
        assert_late(2, ended)
        await watch.fence()

    async def test_a_session_ends_that_clock(self, server: StartServer) -> None:
        """With a session the login times do not count any more."""
        own = server(limits_login_idle=1, limits_login_total=1)
        wire = await own.dial.user()
        watch = await own.dial.user()
        for _ in range(6):
            await _tick(0.4, watch)
        await wire.fence()

    async def test_silent_close_is_noticed(self, server: StartServer) -> None:
        """A peer that vanished is reaped in time: offline, its messages still queued."""
        own = server(limits_heartbeat_min=1)
        a, b = await own.dial.pair()
        again, _ = await own.dial.resume(b.push_id, heartbeat=1)
        rows = await a.post(*(text(b.user_id, f"{n}") for n in range(5)))
        await again.expect_delivery(5)
        await again.fence()
        try:
            again.vanish()
        except PermissionError:
            pytest.skip("closing silently needs more rights")
        # Nothing is written to it from now on: this machine would answer that with a reset.
        began = time.monotonic()
        while (await a.ok("presence", userIds=[b.user_id]))[0]["online"]:
            await _tick(0.1, a)
        assert_late(1.5, time.monotonic() - began)
        back, reply = await own.dial.resume(b.push_id)
        got = await back.take(reply["queued"])
        assert [each["msgId"] for each in got] == [row["msgId"] for row in rows]

    async def test_heartbeat_of_the_default(self, server: StartServer) -> None:
        """Without a wish the configured default is the heartbeat, and it counts."""
        own = server(limits_heartbeat=1, limits_heartbeat_min=1)
        wire = await own.dial.user()
        began = time.monotonic()
        assert (await wire.start())["heartbeat"] == 1
        await wire.rest()
        assert_late(1.5, time.monotonic() - began)


async def _tick(seconds: float, idle: Wire) -> None:
    """Let real time pass by waiting on a connection that has nothing to say."""
    with pytest.raises(TimeoutError):
        await idle.recv_line(seconds)


async def _has_ended(wire: Wire) -> bool:
    """Tell whether the server has closed a connection, without waiting for it."""
    try:
        while True:
            await wire.recv_line(0.001)
    except TimeoutError:
        return False
    except (Closed, OSError):
        return True
