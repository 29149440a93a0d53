"""Section 2, devices: heartbeats, `start`, `restart`, who replaces whom, who is signed out."""

import asyncio
import re
from contextlib import suppress
from itertools import pairwise

import pytest

from .process import StartServer
from .wire import Closed, Dialer, Frame, Wire, befriend, content, frame, lines, new_phone, text

REPLACED = {
    "status": 11000,
    "pushId": "",
    "message": "replaced by another connection",
    "event": {"name": "replaced"},
}


async def assert_signed_out(wire: Wire) -> None:
    """Require that the last frame says so, and that the device is dead."""
    *_, last = await wire.rest()
    assert last["status"] == 11001
    assert last["event"]["name"] == "signed_out"
    assert last["message"] not in ("", "ok")


async def assert_dead(dial: Dialer, push_id: str) -> None:
    """Require that a pushId answers 11001 and yields nothing."""
    wire = await dial()
    await wire.refused(11001, frame("restart", push_id))
    await wire.refused(11001, {"cmd": "friends"})
    await wire.expect_nothing()


class TestHeartbeat:
    """`""` is answered with the same, in its turn, before and after login."""

    async def test_before_login(self, dial: Dialer) -> None:
        """Without a session a heartbeat is answered, with an empty pushId."""
        wire = await dial()
        assert await wire.heartbeat() == {"status": 1, "pushId": "", "message": ""}

    async def test_after_login_and_start(self, dial: Dialer) -> None:
        """The answer carries this connection's pushId, or nothing before `start`."""
        wire = await dial.user()
        assert await wire.heartbeat() == {"status": 1, "pushId": "", "message": ""}
        await wire.start()
        assert await wire.heartbeat() == {"status": 1, "pushId": wire.push_id, "message": ""}

    async def test_status_and_push_id_are_not_looked_at(self, dial: Dialer) -> None:
        """The client's `status` is not looked at, nor its pushId outside start and restart."""
        wire = await dial.user(started=True)
        given: list[object] = [0, 1, -5, 11001, "1", None, [], {"x": 1}]
        for status in given:
            reply = await wire.exchange({"status": status, "pushId": "wrong", "message": ""})
            assert reply == {"status": 1, "pushId": wire.push_id, "message": ""}


class TestStart:
    """`start` binds a device to a connection that has a session."""

    async def test_reply(self, dial: Dialer) -> None:
        """The reply has the pushId to keep, and all that a client wants to know first."""
        wire = await dial.user()
        reply = await wire.exchange(frame("start", id=3))
        assert set(reply) == {
            *("status", "pushId", "message", "id"),
            *("heartbeat", "userId", "queued", "first", "last", "epoch"),
        }
        assert (reply["status"], reply["message"], reply["id"]) == (1, "ok", 3)
        assert (reply["heartbeat"], reply["userId"]) == (270, wire.user_id)
        assert (reply["queued"], reply["first"], reply["last"]) == (0, 0, 0)
        assert isinstance(reply["epoch"], str)
        assert reply["epoch"]

    async def test_push_ids_are_long_and_different(self, dial: Dialer) -> None:
        """A pushId is secret: 128 random bits or more, never the same twice."""
        found = [(await dial.user(started=True)).push_id for _ in range(10)]
        assert len(set(found)) == 10
        for one, other in pairwise(found):
            assert len(one) >= 22
            same = sum(a == b for a, b in zip(one, other, strict=True))
            assert same < len(one) // 2, "they share a part that is not random"

    async def test_epoch_is_one_for_all(self, dial: Dialer) -> None:
        """The epoch belongs to the store, not to the device."""
        first = await (await dial.user()).start()
        second = await (await dial.user()).start()
        assert first["epoch"] == second["epoch"]

    async def test_without_a_session(self, dial: Dialer) -> None:
        """Without a session `start` answers 11001 and the connection stays usable."""
        wire = await dial()
        await wire.refused(11001, frame("start"))
        await wire.register()
        await wire.start()

    async def test_a_known_push_id_is_that_device(self, dial: Dialer) -> None:
        """`start` with a pushId of the account takes that device up, its queue too."""
        a, b = await dial.pair()
        await a.say(b.user_id, "waiting")
        b.abort()
        again = await dial()
        await again.login(b.phone)
        reply = await again.start(b.push_id)
        assert reply["pushId"] == b.push_id
        assert reply["queued"] == 1
        [got] = await again.expect_delivery()
        assert content(got) == "waiting"

    async def test_any_other_push_id_is_a_new_device(self, dial: Dialer) -> None:
        """A pushId that is unknown, dead or not this account's: a new device."""
        other = await dial.user(started=True)
        gone = await dial.user(started=True)
        dead = gone.push_id
        await gone.ok("logout")
        for given in ("unknown", dead, other.push_id, "x" * 500, "数"):
            wire = await dial.user()
            reply = await wire.start(given)
            assert reply["pushId"] not in ("", given)
        await other.expect_nothing()

    async def test_twice(self, dial: Dialer) -> None:
        """A connection that has a device answers 11000 to another start or restart and goes on."""
        a, b = await dial.pair()
        for message in ("start", "restart"):
            for push_id in ("", b.push_id, a.push_id):
                reply = await b.refused(11000, frame(message, push_id))
                assert reply["pushId"] == b.push_id
        await a.say(b.user_id, "still here")
        [got] = await b.expect_delivery()
        assert content(got) == "still here"

    @pytest.mark.parametrize(
        ("asked", "kept"),
        [
            (1, 30),
            (29, 30),
            (30, 30),
            (31, 31),
            (270, 270),
            (900, 900),
            (901, 900),
            (2**53 - 1, 900),
            (None, 270),
            ("", 270),
        ],
    )
    async def test_heartbeat_is_clamped(self, dial: Dialer, asked: object, kept: int) -> None:
        """`heartbeat` is clamped to 30 to 900 seconds, and 270 without."""
        wire = await dial.user()
        assert (await wire.start(heartbeat=asked))["heartbeat"] == kept
        again, reply = await dial.resume(wire.push_id, heartbeat=asked)
        assert reply["heartbeat"] == kept
        await again.fence()

    async def test_device_is_a_name_for_people(self, dial: Dialer) -> None:
        """`device` is what `devices` shows; the pushId is nowhere in it."""
        wire = await dial.user()
        await wire.start(device="Ärger 手机")
        [shown] = await wire.ok("devices")
        assert (shown["name"], shown["online"], shown["current"]) == ("Ärger 手机", True, True)
        assert wire.push_id not in str(shown)

    async def test_account_is_bound(self, dial: Dialer) -> None:
        """`isBind` of an account says that it has a started device."""
        wire = await dial()
        assert (await wire.register())["isBind"] is False
        await wire.start()
        assert (await wire.ok("account"))["isBind"] is True

    async def test_frames_carry_this_connections_push_id(self, dial: Dialer) -> None:
        """Every message_set frame of the server carries this connection's pushId."""
        a, b = await dial.pair()
        assert a.push_id != b.push_id
        assert (await a.send([text(b.user_id, "x")]))["pushId"] == a.push_id
        assert (await a.refused(6004, frame([text("9", "x")], b.push_id)))["pushId"] == a.push_id
        assert (await b.packet())["pushId"] == b.push_id

    async def test_a_new_device_begins_empty(self, dial: Dialer) -> None:
        """A second device gets what is sent from now on, numbered from 1."""
        a, b = await dial.pair()
        await a.say(b.user_id, "before")
        second = await dial()
        await second.login(b.phone)
        started = await second.start()
        assert (started["queued"], started["first"], started["last"]) == (0, 0, 0)
        await a.say(b.user_id, "after")
        [got] = await second.expect_delivery()
        assert (content(got), got["seq"]) == ("after", 1)


class TestRestart:
    """`restart` takes a device up again on a fresh connection, without a login."""

    async def test_logs_in(self, dial: Dialer) -> None:
        """`restart` logs the connection in, as that account on that device."""
        a, b = await dial.pair()
        before = await a.ok("whoami")
        a.close()
        again, reply = await dial.resume(a.push_id)
        assert (reply["pushId"], reply["userId"]) == (a.push_id, a.user_id)
        after = await again.ok("whoami")
        assert (after["userId"], after["deviceId"]) == (before["userId"], before["deviceId"])
        await again.say(b.user_id, "hello")
        [got] = await b.expect_delivery()
        assert got["fromId"] == a.user_id

    async def test_reply(self, dial: Dialer) -> None:
        """The reply has the same fields, and says what waits: how many, first and last seq."""
        a, b = await dial.pair()
        epoch = (await (await dial.user()).start())["epoch"]
        await a.say(b.user_id, "0")
        [acked] = await b.expect_delivery(ack=True)
        await b.fence()
        b.close()
        await a.post(*(text(b.user_id, f"{n}") for n in range(1, 8)))
        again, reply = await dial.resume(b.push_id, id="r")
        assert set(reply) == {
            *("status", "pushId", "message", "id"),
            *("heartbeat", "userId", "queued", "first", "last", "epoch"),
        }
        assert (reply["queued"], reply["heartbeat"], reply["epoch"]) == (7, 270, epoch)
        assert (reply["first"], reply["last"]) == (acked["seq"] + 1, acked["seq"] + 7)
        got = await again.expect_delivery(7, ack=True)
        assert (got[0]["seq"], got[-1]["seq"]) == (reply["first"], reply["last"])

    async def test_nothing_waits(self, dial: Dialer) -> None:
        """When nothing waits `first` is 0 and `last` the last seq ever given out."""
        a, b = await dial.pair()
        await a.post(*(text(b.user_id, f"{n}") for n in range(3)))
        *_, newest = await b.expect_delivery(3, ack=True)
        await b.fence()
        _, reply = await dial.resume(b.push_id)
        assert (reply["queued"], reply["first"], reply["last"]) == (0, 0, newest["seq"])

    @pytest.mark.parametrize("push_id", ["", "unknown", "x" * 500, "数", "' OR 1=1 --"])
    async def test_unknown(self, dial: Dialer, push_id: str) -> None:
        """An unknown pushId: 11001, and the connection stays usable."""
        wire = await dial()
        reply = await wire.refused(11001, frame("restart", push_id))
        assert reply["pushId"] == ""
        await wire.register()
        await wire.start()

    async def test_half_a_push_id(self, dial: Dialer) -> None:
        """Nothing but the whole pushId will do."""
        known = await dial.user(started=True)
        secret = known.push_id
        wire = await dial()
        for given in (secret[:-1], secret + "A", secret.swapcase(), secret[::-1], f" {secret}"):
            await wire.refused(11001, frame("restart", given))
        await known.expect_nothing()
        await wire.restart(secret)

    async def test_after_login_of_that_account(self, dial: Dialer) -> None:
        """After `login` a pushId of the same account is taken up."""
        known = await dial.user(started=True)
        wire = await dial()
        await wire.login(known.phone)
        reply = await wire.restart(known.push_id)
        assert reply["pushId"] == known.push_id

    async def test_after_login_of_another_account(self, dial: Dialer) -> None:
        """After `login` the pushId of another account: 11001; the session stays as it was."""
        known = await dial.user(started=True)
        wire = await dial.user()
        await wire.refused(11001, frame("restart", known.push_id))
        assert (await wire.ok("whoami"))["userId"] == wire.user_id
        await wire.start()
        await known.expect_nothing()

    async def test_what_is_not_acked_flows_again(self, dial: Dialer) -> None:
        """All that the device has not acked flows again, in order, with the same numbers."""
        a, b = await dial.pair()
        for n in range(6):
            await a.say(b.user_id, f"{n}")
        first = await b.expect_delivery(6)
        await b.ack(first[1]["seq"])
        await b.fence()
        again, reply = await dial.resume(b.push_id)
        assert (reply["queued"], reply["first"]) == (4, first[2]["seq"])
        assert await again.expect_delivery(4) == first[2:]
        await again.expect_nothing()

    async def test_a_hundred_times(self, dial: Dialer) -> None:
        """Each restart flows the same again; nothing adds up."""
        a, b = await dial.pair()
        await a.post(*(text(b.user_id, f"{n}") for n in range(3)))
        first = await b.expect_delivery(3)
        for _ in range(30):
            again, reply = await dial.resume(b.push_id)
            assert reply["queued"] == 3
            assert await again.expect_delivery(3) == first


class TestTakeover:
    """When a device comes up on a second connection, the new one wins at once."""

    async def test_the_old_ones_last_frame(self, dial: Dialer) -> None:
        """The old connection's last frame says that it was replaced, and it is closed."""
        old = await dial.user(started=True)
        new, _ = await dial.resume(old.push_id)
        assert await old.rest() == [REPLACED]
        await new.fence()

    async def test_by_login_and_start(self, dial: Dialer) -> None:
        """`start` with the pushId on a logged-in connection replaces the old one too."""
        old = await dial.user(started=True)
        new = await dial()
        await new.login(old.phone)
        await new.start(old.push_id)
        assert await old.rest() == [REPLACED]
        await new.fence()

    async def test_a_connection_without_device_is_not_touched(self, dial: Dialer) -> None:
        """Only the device's own old connection is closed."""
        old = await dial.user(started=True)
        plain = await dial()
        await plain.login(old.phone)
        await dial.resume(old.push_id)
        await plain.fence()
        assert await old.rest() == [REPLACED]

    async def test_nothing_behind_counts(self, dial: Dialer) -> None:
        """After it was replaced a connection does nothing more."""
        a, b = await dial.pair()
        new, _ = await dial.resume(a.push_id)
        await new.fence()
        with suppress(OSError):  # closed already: as good
            await a.send_line(frame([text(b.user_id, "from the old one")]))
        await b.expect_nothing()

    @pytest.mark.parametrize("end", ["close", "abort", "vanish"])
    async def test_the_old_ones_end_does_not_touch_the_new_one(
        self, dial: Dialer, end: str
    ) -> None:
        """The new connection gets everything, also after the old one's late end."""
        a, b = await dial.pair()
        new, _ = await dial.resume(b.push_id)
        await a.post(*(text(b.user_id, f"{n}") for n in range(20)))
        try:
            getattr(b, end)()
        except PermissionError:
            pytest.skip("closing silently needs more rights")
        await a.say(b.user_id, "20")
        got = await new.take(21)
        assert [content(each) for each in got] == [f"{n}" for n in range(21)]
        await new.fence()
        reply = (await dial.resume(b.push_id))[1]
        assert reply["queued"] == 0

    async def test_unread_input_of_the_old_one(self, dial: Dialer) -> None:
        """The last frame can be read though the old connection had sent half a line."""
        old = await dial.user(started=True)
        await old.send_raw(b'{"cmd":"ping","x":"' + b"y" * 50_000)
        await dial.resume(old.push_id)
        assert await old.rest() == [REPLACED]

    async def test_race_of_many(self, dial: Dialer) -> None:
        """Of many that come up at once exactly one stays, and it works."""
        a, b = await dial.pair()
        wires = [await dial() for _ in range(10)]
        for wire in wires:
            await wire.send_line(frame("restart", b.push_id))
        assert await b.rest() == [REPLACED]
        frames = await asyncio.gather(*(_frames_of(wire) for wire in wires))
        replaced = [each for each in frames if each[-1] == REPLACED]
        assert len(replaced) == 9
        # One that was replaced may not have been answered: that is "unknown".
        assert all(len(each) <= 2 for each in replaced)
        [[reply]] = [each for each in frames if each[-1] != REPLACED]
        assert (reply["message"], reply["pushId"]) == ("ok", b.push_id)
        [alive] = [wire for wire, each in zip(wires, frames, strict=True) if each == [reply]]
        await a.say(b.user_id, "x")
        [got] = await alive.expect_delivery()
        assert content(got) == "x"


async def _frames_of(wire: Wire) -> list[Frame]:
    """Return the frames up to the close, or up to a silence."""
    found: list[Frame] = []
    with suppress(Closed, TimeoutError):
        while True:
            found.append(await wire.recv(0.2))
    return found


class TestSignedOut:
    """A device that was signed out gets 11001 with event `signed_out` as its last frame."""

    async def test_sign_out(self, dial: Dialer) -> None:
        """`sign_out` ends the other device at once, and its pushId is dead."""
        one = await dial.user(started=True)
        two = await dial.device(one)
        [other] = [each for each in await two.ok("devices") if not each["current"]]
        await two.ok("sign_out", deviceId=other["deviceId"])
        await assert_signed_out(one)
        await assert_dead(dial, one.push_id)
        await two.fence()
        [left] = await two.ok("devices")
        assert left["current"] is True

    async def test_sign_out_of_a_device_that_is_away(self, dial: Dialer) -> None:
        """A device that is not connected can be signed out too."""
        one = await dial.user(started=True)
        two = await dial.device(one)
        [other] = [each for each in await two.ok("devices") if not each["current"]]
        one.close()
        await two.ok("sign_out", deviceId=other["deviceId"])
        await assert_dead(dial, one.push_id)

    async def test_change_password(self, dial: Dialer) -> None:
        """A changed password signs all other devices out at once, and kills their pushIds."""
        one = await dial.user(started=True)
        two = await dial.device(one)
        three = await dial.device(one)
        await two.ok("change_password", old=one.password, new="Walrus-5512")
        for other in (one, three):
            await assert_signed_out(other)
            await assert_dead(dial, other.push_id)
        await two.fence()
        _, reply = await dial.resume(two.push_id)
        assert reply["userId"] == one.user_id

    async def test_delete_account(self, dial: Dialer) -> None:
        """A deleted account's devices are signed out, and their pushIds dead."""
        one = await dial.user(started=True)
        two = await dial.device(one)
        await two.ok("delete_account", password=one.password)
        await assert_signed_out(one)
        await assert_dead(dial, one.push_id)
        await assert_dead(dial, two.push_id)

    async def test_frames_behind_do_not_count(self, dial: Dialer) -> None:
        """What comes from a signed-out device after the reply has no effect."""
        a, b = await dial.pair()
        second = await dial.device(a)
        await second.ok("change_password", old=a.password, new="Walrus-5512")
        with suppress(OSError):  # closed already: as good
            await a.send_line(frame([text(b.user_id, "from the dead")]))
        await b.expect_nothing()
        shown = await b.ok("history", userId=a.user_id)
        assert "from the dead" not in str(shown)


class TestLogout:
    """After `logout` the connection is as before login, and nothing is delivered after it."""

    async def test_as_before_login(self, dial: Dialer) -> None:
        """The pushId and its queue die; the connection can log in again, as anybody."""
        wire = await dial.user(started=True)
        other = await dial.user()
        assert await wire.ok("logout") == {}
        assert await wire.heartbeat() == {"status": 1, "pushId": "", "message": ""}
        await wire.refused(11001, {"cmd": "friends"})
        await wire.refused(11001, frame("start"))
        await wire.refused(11001, frame([text(other.user_id, "x")]))
        await assert_dead(dial, wire.push_id)
        await wire.login(other.phone)
        await wire.start()
        assert (await wire.ok("whoami"))["userId"] == other.user_id

    async def test_nothing_is_delivered_after_the_reply(self, dial: Dialer) -> None:
        """Messages that wait for the device are not delivered once `logout` is answered."""
        a, b = await dial.pair()
        await a.post(*(text(b.user_id, f"{n}") for n in range(100)))
        await b.ok("logout")
        b.pushed.clear()
        await a.say(b.user_id, "x")
        await b.expect_nothing()

    async def test_frames_behind_have_no_session(self, dial: Dialer) -> None:
        """Frames pipelined behind `logout` run without a session."""
        a, b = await dial.pair()
        sends = [frame([text(b.user_id, f"{n}")], id=n) for n in range(5)]
        await a.send_raw(lines({"cmd": "logout"}, *sends))
        assert [(await a.reply())["status"] for _ in range(6)] == [1, *[11001] * 5]
        await b.expect_nothing()

    async def test_other_devices_stay(self, dial: Dialer) -> None:
        """`logout` ends this device only."""
        one = await dial.user(started=True)
        two = await dial.device(one)
        await two.ok("logout")
        await one.fence()
        assert len(await one.ok("devices")) == 1


class TestTenDevices:
    """An account may have 10 devices."""

    async def test_the_eleventh_signs_out_the_one_longest_offline(self, dial: Dialer) -> None:
        """Of those that are offline the one that left first makes room."""
        owner = await dial.user(started=True)
        devices = [owner, *[await dial.device(owner) for _ in range(9)]]
        watcher = devices[9]
        for online, index in ((9, 4), (8, 2), (7, 7)):
            devices[index].close()
            await _wait_online(watcher, online)
            with pytest.raises(TimeoutError):
                await watcher.recv_line(0.01)  # so that the clock shows a difference
        gone = {devices[index].push_id for index in (4, 2, 7)}
        eleventh = await dial.device(owner)
        assert eleventh.push_id not in gone
        await assert_dead(dial, devices[4].push_id)
        assert len(await watcher.ok("devices")) == 10
        await dial.resume(devices[2].push_id)
        await dial.resume(devices[7].push_id)
        await watcher.fence()

    async def test_all_ten_online(self, dial: Dialer) -> None:
        """When all ten are online the eleventh gets 4006, and the connection stays usable."""
        owner = await dial.user(started=True)
        devices = [owner, *[await dial.device(owner) for _ in range(9)]]
        wire = await dial()
        await wire.login(owner.phone)
        await wire.refused(4006, frame("start"))
        reply = await wire.start(devices[3].push_id)
        assert reply["pushId"] == devices[3].push_id
        assert await devices[3].rest() == [REPLACED]
        for index in (0, 9):
            await devices[index].fence()


async def _wait_online(watcher: Wire, count: int) -> None:
    """Ask until so many devices are online: a close takes its time to arrive."""
    for _ in range(500):
        if sum(each["online"] for each in await watcher.ok("devices")) == count:
            return
    raise AssertionError("a closed device is still shown as online")


class TestWaitingLine:
    """Messages that arrive while an account has no device wait for the next first one."""

    async def test_before_the_first_device(self, dial: Dialer) -> None:
        """What arrives before the first `start` is delivered to it, numbered from 1."""
        a, b = await dial.user(started=True), await dial.user()
        await befriend(a, b)
        rows = [await a.say(b.user_id, f"{n}") for n in range(5)]
        reply = await b.start()
        assert reply["first"] == 1
        assert reply["last"] == reply["queued"]
        got = await b.expect_delivery(reply["queued"], ack=True)
        assert [each["seq"] for each in got] == list(range(1, reply["queued"] + 1))
        assert [each["msgId"] for each in got[-5:]] == [row["msgId"] for row in rows]

    async def test_between_the_last_and_the_next_first(self, dial: Dialer) -> None:
        """What the last device had not acked waits with what came after it."""
        a, b = await dial.pair()
        await a.post(text(b.user_id, "acked"), text(b.user_id, "not acked"))
        got = await b.expect_delivery(2)
        await b.ack(got[0]["seq"])
        await b.fence()
        await b.ok("logout")
        await a.say(b.user_id, "later")
        await b.login(b.phone)
        reply = await b.start()
        assert reply["queued"] == 2
        again = await b.expect_delivery(2, ack=True)
        assert [content(each) for each in again] == ["not acked", "later"]
        assert again[0]["msgId"] == got[1]["msgId"]
        assert [each["seq"] for each in again] == [1, 2]

    async def test_sign_out_of_the_last_device(self, dial: Dialer) -> None:
        """A device that was signed out leaves its unacked messages to the next first one."""
        a, b = await dial.pair()
        await a.say(b.user_id, "x")
        plain = await dial()
        await plain.login(b.phone)
        [only] = await plain.ok("devices")
        await plain.ok("sign_out", deviceId=only["deviceId"])
        reply = await plain.start()
        assert reply["queued"] == 1
        [got] = await plain.expect_delivery()
        assert (content(got), got["seq"]) == ("x", 1)

    async def test_only_the_first_one_gets_them(self, dial: Dialer) -> None:
        """A second device gets nothing of what the first one took over."""
        a, b = await dial.user(started=True), await dial.user()
        await befriend(a, b)
        await a.say(b.user_id, "x")
        assert (await b.start())["queued"] > 0
        second = await dial()
        await second.login(b.phone)
        assert (await second.start())["queued"] == 0

    async def test_again_when_the_reply_was_lost(self, dial: Dialer) -> None:
        """A first device of which the client never learnt keeps nothing from the next one."""
        a, b = await dial.user(started=True), await dial.user()
        await befriend(a, b)
        await a.say(b.user_id, "x")
        queued = (await b.start())["queued"]
        # The reply counts as lost: the pushId is never used.
        b.abort()
        await a.say(b.user_id, "y")
        second = await dial()
        await second.login(b.phone)
        await _wait_online(second, 0)
        assert (await second.start())["queued"] == queued + 1
        got = await second.expect_delivery(queued + 1, ack=True)
        assert [content(each) for each in got[-2:]] == ["x", "y"]
        assert [each["seq"] for each in got] == list(range(1, queued + 2))

    @pytest.mark.parametrize("proof", ["heartbeat", "ack", "restart"])
    async def test_not_when_the_push_id_was_used(self, dial: Dialer, proof: str) -> None:
        """A client that has used its pushId keeps what waits for itself."""
        a, b = await dial.user(started=True), await dial.user()
        await befriend(a, b)
        await b.start()
        await b.expect_delivery()
        if proof == "heartbeat":
            await b.heartbeat()
        elif proof == "ack":
            await b.ack()
            await b.fence()
        b.abort()
        second = await dial()
        await second.login(b.phone)
        await _wait_online(second, 0)
        if proof == "restart":
            again = await dial()
            await again.restart(b.push_id)
            again.abort()
            await _wait_online(second, 0)
        assert (await second.start())["queued"] == 0

    async def test_not_while_another_device_lives(self, dial: Dialer) -> None:
        """The unacked messages of a device die with it while the account has others."""
        a, b = await dial.pair()
        second = await dial.device(b)
        await a.say(b.user_id, "x")
        await second.expect_delivery()
        await second.ok("logout")
        third = await dial()
        await third.login(b.phone)
        assert (await third.start())["queued"] == 0


class TestGuessing:
    """Wrong pushIds are limited per address."""

    async def test_budget(self, server: StartServer) -> None:
        """After the budget of a minute a guess answers 4290 with `retryAfter`."""
        own = server(limits_per_address=True, limits_wrong_push_ids=5)
        known = await own.dial.user(started=True)
        wire = await own.dial()
        statuses = [
            (await wire.exchange(frame("restart", f"guess-{n}")))["status"] for n in range(12)
        ]
        assert statuses[:5] == [11001] * 5
        assert statuses[-1] == 4290
        reply = await wire.refused(4290, frame("restart", "guess"))
        assert reply["retryAfter"] >= 1
        await known.fence()

    async def test_no_budget_without_addresses(self, server: StartServer) -> None:
        """`limits.per_address = false` turns it off."""
        own = server(limits_wrong_push_ids=5)
        wire = await own.dial()
        for n in range(50):
            await wire.refused(11001, frame("restart", f"guess-{n}"))


async def test_all_secret_frames_show_no_other_push_id(dial: Dialer) -> None:
    """Nobody else ever sees a pushId: neither friends nor other devices."""
    a, b = await dial.pair()
    second = await dial.device(a, device="second")
    shown = [
        await b.ok("account", userId=a.user_id),
        await b.ok("friends"),
        await b.ok("chats"),
        await b.ok("history", userId=a.user_id),
        await a.ok("devices"),
        await a.ok("whoami"),
        await a.ok("account"),
    ]
    for secret in (a.push_id, b.push_id, second.push_id):
        assert secret not in str(shown)
    assert re.fullmatch(r"[!-~]+", a.push_id)
    assert new_phone() not in a.push_id
