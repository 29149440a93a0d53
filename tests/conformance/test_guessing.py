"""Section 4 at the door: spellings of a phone, long passwords, guessing and locking out."""

import statistics
import time

import pytest

from .process import StartServer
from .wire import Dialer, Frame, frame, new_phone

GOOD = "Zebra-7731"


class TestSpellings:
    """One account for one phone, however it is written; else a documented refusal."""

    async def test_number_and_string_agree(self, dial: Dialer) -> None:
        """`phone` is a string or a number: the same account."""
        phone = new_phone()
        wire = await dial()
        made = await wire.ok("register", phone=int(phone), password=GOOD)
        assert made["account"] == phone
        for spelling in (phone, int(phone)):
            other = await dial()
            found = await other.ok("login", phone=spelling, password=GOOD)
            assert found["user"]["id"] == made["user"]["id"]

    @pytest.mark.parametrize(
        "spell",
        [
            "+86{0}",
            "0086{0}",
            "86{0}",
            "+86 {0}",
            "86 {1}-{2}-{3}",
            "{1}-{2}-{3}",
            " {0}",
            "{0} ",
            "{0}\n",
            "0{0}",
            "{0}.0",
            "{4}",
        ],
    )
    async def test_spellings(self, dial: Dialer, spell: str) -> None:
        """Each spelling is the same account, or refused by 8000 or 8001; never a second one."""
        phone = new_phone()
        first = await dial()
        made = await first.ok("register", phone=phone, password=GOOD)
        wide = phone.translate({ord("0") + n: ord("０") + n for n in range(10)})
        spelling = spell.format(phone, phone[:3], phone[3:7], phone[7:], wide)
        wire = await dial()
        reply = await wire.command("register", phone=spelling, password=GOOD)
        assert reply["status"] in (7001, 8000, 8001), reply
        login = await wire.command("login", phone=spelling, password=GOOD)
        if reply["status"] == 7001:
            assert login["result"]["user"]["id"] == made["user"]["id"]
        else:
            assert login["status"] == reply["status"]

    @pytest.mark.parametrize("line", ["1.8870742138e10", "18870742138.5", "true", "[]", "{}"])
    async def test_other_types(self, dial: Dialer, line: str) -> None:
        """What is no string and no whole number is refused, and never an account."""
        wire = await dial()
        for cmd in ("register", "login"):
            reply = await wire.exchange(
                f'{{"cmd":"{cmd}","phone":{line},"password":"{GOOD}"}}'.encode()
            )
            assert reply["status"] in (4003, 8000, 8001), reply

    @pytest.mark.parametrize("phone", [-13800000001, 0, 2**53 - 1])
    async def test_other_numbers(self, dial: Dialer, phone: int) -> None:
        """A number that is no phone is refused like its string."""
        wire = await dial()
        for cmd in ("register", "login"):
            reply = await wire.command(cmd, phone=phone, password=GOOD)
            as_text = await wire.command(cmd, phone=str(phone), password=GOOD)
            assert reply["status"] == as_text["status"] in (8000, 8001)


class TestLongPasswords:
    """6 to 64 characters and at most 72 bytes, each byte of them significant."""

    @pytest.mark.parametrize(
        "password", ["x" * 65, "x" * 71, "x" * 72, "x" * 73, "x" * 200, "密" * 25, "密" * 64]
    )
    async def test_too_long(self, dial: Dialer, password: str) -> None:
        """Over 64 characters or 72 bytes: 8003 in all three commands, never an internal error."""
        known = await dial.user()
        wire = await dial()
        for cmd in ("register", "login"):
            phone = new_phone() if cmd == "register" else known.phone
            await wire.refused(8003, {"cmd": cmd, "phone": phone, "password": password})
        await known.refused(8003, {"cmd": "change_password", "old": GOOD, "new": password})
        reply = await known.command("change_password", old=password, new=GOOD)
        assert reply["status"] in (8003, 10000)

    @pytest.mark.parametrize("password", ["x" * 64, "密" * 24, "é" * 36, "😀" * 18])
    async def test_as_long_as_allowed(self, dial: Dialer, password: str) -> None:
        """A password of the full length works, and its last character counts."""
        wire = await dial()
        await wire.register(password=password)
        other = await dial()
        await other.refused(10000, {"cmd": "login", "phone": wire.phone, "password": password[:-1]})
        changed = password[:-1] + ("y" if password[-1] != "y" else "z")
        await other.refused(10000, {"cmd": "login", "phone": wire.phone, "password": changed})
        await other.login(wire.phone, password)

    async def test_unknown_users_take_as_long(self, server: StartServer) -> None:
        """With `hide_unknown_users` neither the status nor the time tells who is known."""
        own = server(
            auth_bcrypt_cost=8, auth_hide_unknown_users=True, limits_wrong_passwords=1_000_000
        )
        wire = await own.dial()
        times: dict[str, list[float]] = {"known": [], "unknown": []}
        # A new account each time: wrong passwords make an account slower on purpose.
        known = [await own.dial.user() for _ in range(40)]
        for user in known:
            for kind, phone in (("known", user.phone), ("unknown", new_phone())):
                began = time.perf_counter()
                await wire.refused(
                    10000, {"cmd": "login", "phone": phone, "password": "wrong-password"}
                )
                times[kind].append(time.perf_counter() - began)
        one, other = (statistics.median(each) for each in times.values())
        assert abs(one - other) < 0.15 * max(one, other), (one, other)


class TestGuessing:
    """Wrong passwords are limited per account and address; nobody can lock a stranger out."""

    async def test_budget_of_one_account(self, server: StartServer) -> None:
        """After 5 in a minute: 4290 with `retryAfter`, right ones included from that address."""
        own = server(limits_per_address=True)
        known = await own.dial.user()
        wire = await own.dial()
        login = {"cmd": "login", "phone": known.phone, "password": "wrong-password"}
        statuses = [(await wire.exchange(login))["status"] for _ in range(8)]
        assert statuses[:5] == [10000] * 5
        assert statuses[5:] == [4290] * 3
        other = await own.dial()
        reply = await other.refused(4290, {**login, "password": known.password})
        assert reply["retryAfter"] >= 1
        await known.fence()

    async def test_other_accounts_are_free(self, server: StartServer) -> None:
        """The budget is the account's: another one logs in from the same address."""
        own = server(limits_per_address=True)
        known, other = await own.dial.user(), await own.dial.user()
        wire = await own.dial()
        for _ in range(8):
            await wire.command("login", phone=known.phone, password="wrong-password")
        await wire.login(other.phone)

    async def test_unknown_phones_are_limited_the_same(self, server: StartServer) -> None:
        """Guessing at a phone that nobody has is limited too, so it tells nothing."""
        own = server(limits_per_address=True, auth_hide_unknown_users=True)
        wire = await own.dial()
        login = {"cmd": "login", "phone": new_phone(), "password": "wrong-password"}
        statuses = [(await wire.exchange(login))["status"] for _ in range(8)]
        assert statuses == [10000] * 5 + [4290] * 3

    async def test_devices_are_not_touched(self, server: StartServer) -> None:
        """`restart` needs no password and is not held up by somebody's guesses."""
        own = server(limits_per_address=True)
        known = await own.dial.user(started=True)
        wire = await own.dial()
        for _ in range(8):
            await wire.command("login", phone=known.phone, password="wrong-password")
        known.close()
        _, reply = await own.dial.resume(known.push_id)
        assert reply["userId"] == known.user_id

    async def test_logins_per_address(self, server: StartServer) -> None:
        """An address has so many logins an hour, whatever phones it names."""
        own = server(limits_per_address=True, limits_logins=20)
        wire = await own.dial()
        replies: list[Frame] = []
        for _ in range(30):
            replies.append(await wire.command("login", phone=new_phone(), password=GOOD))
        statuses = [each["status"] for each in replies]
        assert statuses[0] == 6004
        assert statuses[-1] == 4290
        assert replies[-1]["retryAfter"] >= 1
        assert 15 <= statuses.count(6004) <= 25

    async def test_registers_per_address(self, server: StartServer) -> None:
        """An address has so many new accounts an hour."""
        own = server(limits_per_address=True, limits_registers=5)
        statuses = []
        for _ in range(8):
            wire = await own.dial()
            reply = await wire.command("register", phone=new_phone(), password=GOOD)
            statuses.append(reply["status"])
        assert statuses == [1] * 5 + [4290] * 3

    async def test_refused_registers_take_nothing(self, server: StartServer) -> None:
        """4290 stores nothing: the phone is still free."""
        own = server(limits_per_address=True, limits_registers=1)
        await own.dial.user()
        wire, phone = await own.dial(), new_phone()
        await wire.refused(4290, {"cmd": "register", "phone": phone, "password": GOOD})
        await wire.refused(6004, {"cmd": "login", "phone": phone, "password": GOOD})

    async def test_off(self, server: StartServer) -> None:
        """`limits.per_address = false` turns the budgets per address off."""
        own = server(limits_logins=3, limits_registers=3)
        for _ in range(10):
            wire = await own.dial.user()
            await (await own.dial()).login(wire.phone)

    async def test_wrong_passwords_off(self, dial: Dialer) -> None:
        """That of wrong passwords per account and address is one of them."""
        known = await dial.user()
        wire = await dial()
        for _ in range(30):
            await wire.refused(
                10000, {"cmd": "login", "phone": known.phone, "password": "wrong-password"}
            )
        await wire.login(known.phone)


async def test_a_session_cannot_log_in_again(dial: Dialer) -> None:
    """`register` and `login` on a session: 11000 before anything else."""
    wire = await dial.user(started=True)
    for cmd in ("register", "login"):
        await wire.refused(11000, {"cmd": cmd, "phone": wire.phone, "password": wire.password})
        await wire.refused(11000, {"cmd": cmd, "phone": "", "password": ""})
    assert (await wire.ok("whoami"))["userId"] == wire.user_id
    await wire.refused(11000, frame("start"))
