"""Section 3 and 4, `login`, `logout` and `change_password`: who gets in, and who stays in.

What guessing costs one address stands in `test_guessing`; here several addresses of the
loopback stand for several machines.
"""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from .people import ACCOUNT, USER, assert_envelope, at_once, dial_from, failed, limited
from .process import Process, StartServer
from .wire import PASSWORD, Closed, Dialer, Wire, new_phone, text

OTHER = "Quagga-2242"
WRONG = "Wombat-9090"


async def assert_signed_out(wire: Wire) -> None:
    """Require that the last frame of a connection says that its login is over."""
    found = await wire.rest()
    assert found, "no last frame"
    assert (found[-1]["status"], found[-1]["pushId"]) == (11001, "")
    assert found[-1]["event"] == {"name": "signed_out"}


class TestLogin:
    """A phone and its password give the account."""

    async def test_shape(self, dial: Dialer) -> None:
        """The same account as `register` gave, in the envelope."""
        owner = await dial()
        registered = await owner.register()
        wire = await dial()
        reply = await wire.command("login", phone=owner.phone, password=owner.password)
        assert_envelope(reply, "login", dict)
        assert (reply["status"], reply["message"]) == (1, "ok")
        assert set(reply["result"]) >= ACCOUNT
        assert set(reply["result"]["user"]) == USER
        assert reply["result"] == registered
        who = await wire.ok("whoami")
        assert (who["userId"], who["deviceId"]) == (owner.user_id, "")

    async def test_by_number(self, dial: Dialer) -> None:
        """The phone may be a number."""
        owner = await dial.user()
        wire = await dial()
        account = await wire.ok("login", phone=int(owner.phone), password=owner.password)
        assert account["account"] == owner.phone

    async def test_is_bound(self, dial: Dialer) -> None:
        """`isBind` tells whether the account has a started device, on any connection."""
        owner = await dial.user()
        assert (await (await dial()).login(owner.phone))["isBind"] is False
        await owner.start()
        assert (await (await dial()).login(owner.phone))["isBind"] is True
        owner.close()
        assert (await (await dial()).login(owner.phone))["isBind"] is True
        back, _ = await dial.resume(owner.push_id)
        await back.ok("logout")
        assert (await (await dial()).login(owner.phone))["isBind"] is False

    async def test_unknown(self, dial: Dialer) -> None:
        """A phone that nobody has: 6004."""
        wire = await dial()
        await failed(wire, 6004, "login", {}, "phone", phone=new_phone(), password=PASSWORD)

    async def test_wrong(self, dial: Dialer) -> None:
        """A wrong password: 10000; the connection is as it was, and may try again."""
        owner = await dial.user()
        wire = await dial()
        await failed(wire, 10000, "login", {}, "password", phone=owner.phone, password=WRONG)
        assert (await wire.ok("whoami"))["userId"] == ""
        await failed(wire, 11001, "account", {})
        await wire.login(owner.phone)

    async def test_order(self, dial: Dialer) -> None:
        """Password 6000, 8003, 8002; phone 6003, 8001, 8000; 6004, 10000."""
        owner = await dial.user()
        wire = await dial()
        given: dict[str, object] = {}
        for status, field, change in (
            (6000, "password", {"password": "", "phone": ""}),
            (8003, "password", {"password": "\n" * 5}),
            (8003, "password", {"password": "密" * 25}),
            (8002, "password", {"password": "\n" * 6}),
            (6003, "phone", {"password": WRONG}),
            (8001, "phone", {"phone": "2" * 12}),
            (8000, "phone", {"phone": "2" * 11}),
            (6004, "phone", {"phone": new_phone()}),
            (10000, "password", {"phone": owner.phone}),
        ):
            given |= change
            await failed(wire, status, "login", {}, field, **given)
        await wire.login(owner.phone)

    @pytest.mark.parametrize("missing", [{}, {"phone": None}, {"phone": ""}, {"phone": "  "}])
    async def test_without_a_phone(self, dial: Dialer, missing: Any) -> None:
        """Absent, null and "" are no phone: 6003."""
        await failed(await dial(), 6003, "login", {}, "phone", password=PASSWORD, **missing)

    @pytest.mark.parametrize("missing", [{}, {"password": None}, {"password": ""}])
    async def test_without_a_password(self, dial: Dialer, missing: Any) -> None:
        """Absent, null and "" are no password: 6000."""
        await failed(await dial(), 6000, "login", {}, "password", phone=new_phone(), **missing)

    @pytest.mark.parametrize("fields", [{}, {"phone": {}, "password": []}, {"id": "x"}])
    @pytest.mark.parametrize("started", [False, True])
    async def test_on_a_session(self, dial: Dialer, fields: Any, started: bool) -> None:
        """A connection with a session answers 11000 before it looks at anything."""
        wire = await dial.user(started=started)
        await failed(wire, 11000, "login", {}, **fields)
        assert (await wire.ok("whoami"))["userId"] == wire.user_id

    async def test_after_restart(self, dial: Dialer) -> None:
        """`restart` has logged the connection in, so `login` answers 11000."""
        owner = await dial.user(started=True)
        back, _ = await dial.resume(owner.push_id)
        await failed(back, 11000, "login", {}, phone=owner.phone, password=owner.password)

    async def test_many_at_once(self, dial: Dialer) -> None:
        """An account may be logged in on many connections, also in one moment."""
        owner = await dial.user()
        wires = [await dial() for _ in range(20)]
        line = {"cmd": "login", "phone": owner.phone, "password": owner.password}
        replies = await at_once(*((wire, line) for wire in wires))
        assert [reply["status"] for reply in replies] == [1] * 20
        await owner.fence()

    async def test_a_shorter_old_password(self, server: StartServer) -> None:
        """`auth.min_password` is about new passwords: those from before still log in."""
        own = server()
        owner = await own.dial.user(password="sixsix")
        own.settings["auth_min_password"] = 10
        own.restart()
        wire = await own.dial()
        await failed(wire, 8003, "register", {}, phone=new_phone(), password="sevenseve")
        await wire.login(owner.phone, "sixsix")
        await failed(wire, 8003, "change_password", {}, "new", old="sixsix", new="sevenseve")
        await wire.ok("change_password", old="sixsix", new="tententent")

    async def test_a_lower_cost_is_renewed(self, server: StartServer) -> None:
        """Passwords stay right when `auth.bcrypt_cost` is changed."""
        own = server(auth_bcrypt_cost=5)
        owner = await own.dial.user()
        own.settings["auth_bcrypt_cost"] = 4
        own.restart()
        for _ in range(2):
            wire = await own.dial()
            await failed(wire, 10000, "login", {}, phone=owner.phone, password=WRONG)
            await wire.login(owner.phone)


class TestLogout:
    """After it the connection is as before the login."""

    async def test_reply(self, dial: Dialer) -> None:
        """An empty object; nobody is logged in then."""
        wire = await dial.user()
        reply = await wire.command("logout")
        assert_envelope(reply, "logout", dict)
        assert (reply["status"], reply["result"]) == (1, {})
        assert (await wire.ok("whoami"))["userId"] == ""
        await failed(wire, 11001, "logout", {})

    async def test_another_account_may_follow(self, dial: Dialer) -> None:
        """The same connection may log in again, as somebody else too."""
        wire, other = await dial.user(), await dial.user()
        first = wire.phone
        await wire.ok("logout")
        await wire.login(other.phone)
        assert (await wire.ok("account"))["account"] == other.phone
        await wire.ok("logout")
        await wire.register()
        await wire.ok("logout")
        await wire.login(first)

    async def test_the_device_dies(self, dial: Dialer) -> None:
        """The pushId is dead, and the device is on no list any more."""
        owner = await dial.user(started=True)
        other = await dial.device(owner)
        await owner.ok("logout")
        assert len(await other.ok("devices")) == 1
        again = await dial()
        await again.refused(11001, {"status": 1, "pushId": owner.push_id, "message": "restart"})

    async def test_without_a_device(self, dial: Dialer) -> None:
        """A login without a device takes none with it."""
        owner = await dial.user(started=True)
        wire = await dial()
        await wire.login(owner.phone)
        await wire.ok("logout")
        [device] = await owner.ok("devices")
        assert device["current"] is True

    async def test_frames_behind(self, dial: Dialer) -> None:
        """What is pipelined behind a logout has no session."""
        a, b = await dial.pair()
        await a.send_line({"cmd": "logout"})
        await a.send_line({"status": 1, "pushId": "", "message": [text(b.user_id, "late")]})
        await a.send_line({"cmd": "friends"})
        assert [(await a.reply())["status"] for _ in range(3)] == [1, 11001, 11001]
        await b.expect_nothing()


class TestChangePassword:
    """The old one ends, and so does every other login."""

    async def test_reply(self, dial: Dialer) -> None:
        """One's own account; the new password logs in and the old one does not."""
        owner = await dial()
        account = await owner.register()
        reply = await owner.command("change_password", old=owner.password, new=OTHER)
        assert_envelope(reply, "change_password", dict)
        assert reply["status"] == 1
        assert reply["result"]["user"]["id"] == account["user"]["id"]
        assert reply["result"]["account"] == owner.phone
        wire = await dial()
        await failed(wire, 10000, "login", {}, phone=owner.phone, password=owner.password)
        await wire.login(owner.phone, OTHER)

    async def test_wrong_old_one(self, dial: Dialer) -> None:
        """10000 for the wrong old password, and nothing changes."""
        owner = await dial.user(started=True)
        other = await dial.device(owner)
        await failed(owner, 10000, "change_password", {}, "old", old=WRONG, new=OTHER)
        await other.fence()
        await (await dial()).login(owner.phone)

    @pytest.mark.parametrize(
        ("status", "field", "fields"),
        [
            (6000, "old", {"new": OTHER}),
            (6000, "old", {"old": "", "new": ""}),
            (6000, "old", {"old": None, "new": OTHER}),
            (6000, "new", {"old": PASSWORD}),
            (6000, "new", {"old": PASSWORD, "new": ""}),
            (8003, "new", {"old": PASSWORD, "new": "short"}),
            (8003, "new", {"old": PASSWORD, "new": "a" * 65}),
            (8003, "new", {"old": PASSWORD, "new": "密" * 25}),
            (8002, "new", {"old": PASSWORD, "new": " " * 6}),
            (8002, "new", {"old": PASSWORD, "new": "abc\ndef"}),
            (4003, "new", {"old": PASSWORD, "new": 123456}),
            (4003, "old", {"old": ["x"], "new": OTHER}),
        ],
    )
    async def test_refused(self, dial: Dialer, status: int, field: str, fields: Any) -> None:
        """The rules of a new account's password hold, and the field is named."""
        owner = await dial.user()
        await failed(owner, status, "change_password", {}, field, **fields)
        await (await dial()).login(owner.phone)

    async def test_all_others_are_signed_out(self, dial: Dialer) -> None:
        """Devices and logins without one get 11001 as their last frame; the caller stays."""
        owner = await dial.user(started=True)
        device, bare = await dial.device(owner), await dial()
        await bare.login(owner.phone)
        away = await dial.device(owner)
        away.close()
        await owner.ok("change_password", old=owner.password, new=OTHER)
        await assert_signed_out(device)
        await assert_signed_out(bare)
        [left] = await owner.ok("devices")
        assert left["current"] is True
        for dead in (device.push_id, away.push_id):
            again = await dial()
            await again.refused(11001, {"status": 1, "pushId": dead, "message": "restart"})
        back, _ = await dial.resume(owner.push_id)
        await back.fence()

    async def test_by_a_login_without_a_device(self, dial: Dialer) -> None:
        """Then all devices are others, and the login goes on and may start one."""
        owner = await dial.user(started=True)
        bare = await dial()
        await bare.login(owner.phone)
        await bare.ok("change_password", old=owner.password, new=OTHER)
        await assert_signed_out(owner)
        assert await bare.ok("devices") == []
        await bare.start()
        await bare.ok("complete_account", desc="still here")

    @pytest.mark.slow
    async def test_by_a_connection_that_is_replaced_meanwhile(self, server: StartServer) -> None:
        """All others are signed out then too; the device that is kept stays on its new one."""
        own = server(auth_bcrypt_cost=9)
        owner = await own.dial.user(started=True)
        bare = await own.dial()
        await bare.login(owner.phone)
        change = {"cmd": "change_password", "old": owner.password, "new": OTHER}
        await owner.send_line(change)
        kept, _ = await own.dial.resume(owner.push_id)
        await assert_signed_out(bare)
        await kept.fence()
        await (await own.dial()).login(owner.phone, OTHER)

    async def test_the_same_again(self, dial: Dialer) -> None:
        """The new password may be the old one."""
        owner = await dial.user()
        await owner.ok("change_password", old=owner.password, new=owner.password)
        await (await dial()).login(owner.phone)

    async def test_race(self, dial: Dialer) -> None:
        """Of two changes at once one wins; the other login has ended, or knows it was wrong."""
        for _ in range(10):
            owner = await dial.user()
            other = await dial()
            await other.login(owner.phone)
            change = {"cmd": "change_password", "old": owner.password}
            for wire, new in ((owner, OTHER), (other, WRONG)):
                await wire.send_line({**change, "new": new})
            replies = await asyncio.gather(_status(owner), _status(other))
            assert sorted(replies) in ([1, 10000], [1, 11001]), replies
            new = OTHER if replies[0] == 1 else WRONG
            await (await dial()).login(owner.phone, new)

    async def test_a_login_during_the_change(self, dial: Dialer) -> None:
        """A login by the old password either comes too late or is signed out."""
        for _ in range(10):
            owner = await dial.user()
            other = await dial()
            login = {"cmd": "login", "phone": owner.phone, "password": owner.password}
            await other.send_line(login)
            await owner.ok("change_password", old=owner.password, new=OTHER)
            status = await _status(other)
            if status == 1:
                with contextlib.suppress(Closed, ConnectionResetError):
                    # Either closed already, or refused: it must not act for the account.
                    assert (await other.command("complete_account", desc="x"))["status"] == 11001
            else:
                assert status in (10000, 11001)
            assert (await owner.ok("account"))["user"]["desc"] == ""

    async def test_guesses_cost_the_same(self, server: StartServer) -> None:
        """A wrong old password counts like one at `login`; the wait is told."""
        own = server(limits_per_address=True, limits_wrong_passwords=3)
        owner = await own.dial.user()
        for _ in range(3):
            await failed(owner, 10000, "change_password", {}, "old", old=WRONG, new=OTHER)
        await limited(owner, "change_password", {}, old=owner.password, new=OTHER)
        await limited(await own.dial(), "login", {}, phone=owner.phone, password=owner.password)


class TestAddresses:
    """Guesses are counted per account and address, so nobody can lock a stranger out."""

    async def test_the_owner_elsewhere(self, server: StartServer) -> None:
        """The right password from another address gets in while a guesser waits."""
        own = server(limits_per_address=True, limits_wrong_passwords=3)
        owner = await own.dial.user()
        guesser = await _from(own, "127.0.0.9")
        for _ in range(3):
            await failed(guesser, 10000, "login", {}, phone=owner.phone, password=WRONG)
        wait = await limited(guesser, "login", {}, phone=owner.phone, password=owner.password)
        assert wait <= 60
        again = await _from(own, "127.0.0.9")
        assert await limited(again, "login", {}, phone=owner.phone, password=WRONG) <= wait
        for source in ("127.0.0.1", "127.0.0.8"):
            await (await _from(own, source)).login(owner.phone)

    async def test_a_known_address(self, server: StartServer) -> None:
        """An address that has logged in is not limited, also after a restart."""
        own = server(limits_per_address=True, limits_wrong_passwords=3)
        owner = await own.dial.user()
        await (await own.dial()).login(owner.phone)
        for _ in range(2):
            wire = await own.dial()
            for _ in range(5):
                await failed(wire, 10000, "login", {}, phone=owner.phone, password=WRONG)
            await wire.login(owner.phone)
            own.restart()

    async def test_guesses_at_once(self, server: StartServer) -> None:
        """Guesses that are sent in one moment are counted one by one."""
        own = server(limits_per_address=True)
        owner = await own.dial.user()
        line = {"cmd": "login", "phone": owner.phone, "password": WRONG}
        wires = [await own.dial() for _ in range(30)]
        replies = await at_once(*((wire, line) for wire in wires))
        assert sorted(reply["status"] for reply in replies) == [4290] * 25 + [10000] * 5

    async def test_one_password_over_many_phones(self, server: StartServer) -> None:
        """The budget of logins bounds what one address may try; others are free."""
        own = server(limits_per_address=True, limits_logins=5)
        wire = await _from(own, "127.0.0.9")
        for _ in range(5):
            await failed(wire, 6004, "login", {}, phone=new_phone(), password=WRONG)
        wait = await limited(wire, "login", {}, phone=new_phone(), password=WRONG)
        assert wait <= 3600
        other = await _from(own, "127.0.0.8")
        await failed(other, 6004, "login", {}, phone=new_phone(), password=WRONG)

    async def test_new_accounts(self, server: StartServer) -> None:
        """An address has its budget of accounts, another one has its own."""
        own = server(limits_per_address=True, limits_registers=2)
        for source in ("127.0.0.9", "127.0.0.8"):
            for _ in range(2):
                await (await _from(own, source)).register()
            wire = await _from(own, source)
            await limited(wire, "register", {}, phone=new_phone(), password=PASSWORD)


class TestHidden:
    """With `auth.hide_unknown_users` no answer tells which phones are known."""

    async def test_same_answer(self, server: StartServer) -> None:
        """An unknown phone and a wrong password differ in nothing."""
        own = server(auth_hide_unknown_users=True)
        owner = await own.dial.user()
        wire = await own.dial()
        replies = []
        for phone in (owner.phone, new_phone()):
            reply = await failed(wire, 10000, "login", {}, phone=phone, password=WRONG)
            replies.append({**reply, "date": ""})
        assert replies[0] == replies[1]


class TestSecrets:
    """What people type is neither shown to others nor written to the log."""

    async def test_log(self, server: StartServer) -> None:
        """At debug: no password, no pushId nor half of it, no text, and no forged line."""
        own = server(log_level="debug")
        a, b = await own.dial.pair()
        await a.say(b.user_id, "Walrus-5512")
        await b.expect_delivery(ack=True)
        await a.ok("ping", text="Walrus-5512")
        wire = await own.dial()
        forged = "1\n2026-11-24 INFO admin logged in"
        for phone in (forged, "\r\x1b[2J", "1\u20282026", "1" * 3000):
            await wire.command("login", phone=phone, password=PASSWORD)
        await wire.command("register", phone=new_phone(), password=PASSWORD, username=forged)
        await wire.command("register", phone=new_phone(), password=PASSWORD, username="\x1b[2J")
        await wire.exchange({"cmd": "\n2026 forged\u2028\x1b[2J"})
        await a.ok("change_password", old=PASSWORD, new=OTHER)
        await failed(b, 10000, "change_password", {}, old=WRONG, new=OTHER)
        own.dial.close()
        own.stop()
        logged = own.log_text()
        assert logged
        for secret in (PASSWORD, OTHER, WRONG, "Walrus-5512", *_halves(a), *_halves(b)):
            assert secret not in logged
        for mark in ("\x1b", "\r", "\u2028", "\n2026-11-24 INFO admin", "\n2026 forged"):
            assert mark not in logged
        assert "1" * 1000 not in logged

    async def test_store(self, server: StartServer) -> None:
        """The files of the store hold neither a password nor a pushId."""
        own = server()
        a = await own.dial.user(started=True)
        await a.ok("change_password", old=PASSWORD, new=OTHER)
        own.dial.close()
        own.stop()
        stored = b"".join(_bytes_of(own.data))
        assert a.phone.encode() in stored
        for secret in (PASSWORD, OTHER, a.push_id):
            assert secret.encode() not in stored


async def _status(wire: Wire) -> int:
    """Return the status of the reply, or of the last frame of a connection that was ended."""
    try:
        return int((await wire.reply())["status"])
    except Closed as closed:
        return int(closed.pushed[-1]["status"])


async def _from(own: Process, source: str) -> Wire:
    wire = await dial_from(own, source)
    own.dial._wires.append(wire)
    return wire


def _halves(wire: Wire) -> tuple[str, str]:
    middle = len(wire.push_id) // 2
    return wire.push_id[:middle], wire.push_id[middle:]


def _bytes_of(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
