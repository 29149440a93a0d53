"""Section 3 and 4, `register`: the account it makes, and in which order it refuses."""

from typing import Any

import pytest

from .people import (
    ACCOUNT,
    ONE_LOOP,
    ROUNDS,
    USER,
    assert_envelope,
    at_once,
    failed,
    is_date,
    new_name,
    new_tag,
)
from .wire import PASSWORD, Dialer, Frame, Wire, new_phone

pytestmark = ONE_LOOP


async def refused(wire: Wire, status: int, field: str | None = None, /, **fields: object) -> Frame:
    """Require that a registration fails, and that the connection has no session then."""
    reply = await failed(wire, status, "register", {}, field, **fields)
    assert (await wire.ok("whoami"))["userId"] == ""
    return reply


class TestAccount:
    """What a new account looks like."""

    async def test_shape(self, dial: Dialer) -> None:
        """The account of the interface document, as its owner sees it, in the envelope."""
        wire, phone, name = await dial(), new_phone(), new_name()
        reply = await wire.command("register", phone=phone, password=PASSWORD, username=name)
        assert_envelope(reply, "register", dict)
        assert (reply["status"], reply["message"]) == (1, "ok")
        account = reply["result"]
        assert set(account) >= ACCOUNT
        assert (account["account"], account["isBind"]) == (phone, False)
        user = account["user"]
        assert set(user) == USER
        assert user["id"].isdecimal()
        assert int(user["id"]) >= 10001
        assert is_date(user["modifyAt"])
        assert user == {
            "id": user["id"],
            "username": name,
            "phone": phone,
            "avatar": "",
            "desc": "",
            "sex": 0,
            "alias": "",
            "friends": 0,
            "isFriend": False,
            "modifyAt": user["modifyAt"],
        }

    async def test_logs_in(self, dial: Dialer) -> None:
        """The connection has a session of the new account, without a device."""
        wire = await dial.user()
        who = await wire.ok("whoami")
        assert (who["userId"], who["deviceId"]) == (wire.user_id, "")

    async def test_ids_rise(self, dial: Dialer) -> None:
        """Every account has an id of its own, larger than those before."""
        one, two = await dial.user(), await dial.user()
        assert int(one.user_id) < int(two.user_id)

    @pytest.mark.parametrize("username", [{}, {"username": None}, {"username": ""}])
    async def test_without_a_username(self, dial: Dialer, username: Any) -> None:
        """Absent, null and "" are no username: empty, and not taken by anybody."""
        for _ in range(2):
            account = await (await dial()).register(**username)
            assert account["user"]["username"] == ""

    async def test_unknown_fields_are_ignored(self, dial: Dialer) -> None:
        """Fields of other versions do no harm, whatever they hold."""
        account = await (await dial()).register(isBind=True, id=7, userId={}, user=[[1]], desc="x")
        assert account["user"]["desc"] == ""
        assert account["isBind"] is False

    async def test_the_password_is_never_told(self, dial: Dialer) -> None:
        """No reply holds the password."""
        wire = await dial()
        reply = await wire.command("register", phone=new_phone(), password=PASSWORD)
        assert PASSWORD not in str(reply)
        assert "password" not in str(reply)

    @pytest.mark.parametrize(
        "fields", [{}, {"password": "", "phone": ""}, {"phone": {}, "password": 1}]
    )
    async def test_on_a_session(self, dial: Dialer, fields: Any) -> None:
        """A connection with a session answers 11000 before it looks at anything."""
        wire = await dial.user()
        await failed(wire, 11000, "register", {}, **fields)
        assert (await wire.ok("whoami"))["userId"] == wire.user_id

    async def test_after_a_refusal(self, dial: Dialer) -> None:
        """A refused registration takes neither the phone nor the name."""
        wire, phone, name = await dial(), new_phone(), new_name()
        await refused(wire, 8003, phone=phone, password="short", username=name)
        await refused(wire, 9000, phone=phone, password=PASSWORD, username="admin")
        await wire.register(phone, username=name)


class TestOrder:
    """Everything may be wrong at once: one order says which code is told."""

    async def test_register(self, dial: Dialer) -> None:
        """Password 6000, 8003, 8002; phone 6003, 8001, 8000; 8004, 9000, 7001, 7000."""
        phone, name = new_phone(), new_name()
        await dial.user(phone=phone, username=name)
        wire = await dial()
        given: dict[str, object] = {"username": "n" * 16}
        for status, field, change in (
            (6000, "password", {"password": "", "phone": ""}),
            (8003, "password", {"password": "\n" * 5}),
            (8002, "password", {"password": "\n" * 6}),
            (6003, "phone", {"password": PASSWORD}),
            (8001, "phone", {"phone": "2" * 12}),
            (8000, "phone", {"phone": "2" * 11}),
            (8004, "username", {"phone": phone}),
            (9000, "username", {"username": "admin"}),
            (7001, "phone", {"username": name}),
            (7000, "username", {"phone": new_phone()}),
        ):
            given |= change
            await refused(wire, status, field, **given)
        await wire.ok("register", **{**given, "username": new_name()})

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"phone": "", "password": 1}, "password"),
            ({"phone": True, "password": PASSWORD}, "phone"),
            ({"phone": ["1"], "password": PASSWORD}, "phone"),
            ({"phone": {}, "password": PASSWORD}, "phone"),
            ({"phone": 2**53, "password": PASSWORD}, "phone"),
            ({"phone": "18870742138", "password": PASSWORD, "username": 5}, "username"),
            ({"phone": "18870742138", "password": "a\0bcdef"}, "password"),
            ({"phone": "1887074213\0", "password": PASSWORD}, "phone"),
            ({"phone": "18870742138", "password": PASSWORD, "username": "a\0"}, "username"),
        ],
    )
    async def test_bad_fields(self, dial: Dialer, fields: Any, field: str) -> None:
        """A wrong type, U+0000 or too large an integer: 4003 with the field."""
        await refused(await dial(), 4003, field, **fields)


class TestPasswords:
    """6 to 64 characters, at most 72 bytes, and significant to the last one."""

    @pytest.mark.parametrize(
        "password",
        [
            "a" * 5 + "b",
            "a" * 64,
            "密" * 6,
            "密" * 24,
            "😀" * 18,
            " padded ",
            "with spaces in it",
            "\u3000ideographic",
            "'; DROP TABLE account; --",
            '"\\/{}[]<>&%s',
            "e\u0301\u00e9ﬁ\u202e\u200b",
        ],
    )
    async def test_accepted(self, dial: Dialer, password: str) -> None:
        """Any text within the limits; it logs in again."""
        wire = await dial.user(password=password)
        await (await dial()).login(wire.phone, password)

    @pytest.mark.parametrize(
        ("status", "password"),
        [
            (6000, ""),
            (6000, None),
            (8003, "a"),
            (8003, "a" * 5),
            (8003, "密" * 5),
            (8003, "a" * 65),
            (8003, "a" * 71),
            (8003, "a" * 72),
            (8003, "a" * 73),
            (8003, "a" * 200),
            (8003, "密" * 25),
            (8003, "密" * 64),
            (8003, "😀" * 19),
            (8003, " " * 65),
            (8002, " " * 6),
            (8002, "\u3000" * 6),
            (8002, "\t" * 6),
            (8002, "abc\ndef"),
            (8002, "abcdef\r"),
            (8002, "abc\x7fdef"),
            (8002, "abc\x85def"),
            (8002, "abc\x1bdef"),
        ],
    )
    async def test_refused(self, dial: Dialer, status: int, password: object) -> None:
        """Empty 6000; length in characters or bytes 8003; control characters and blanks 8002."""
        fields = {"phone": new_phone(), "password": password}
        await refused(await dial(), status, "password", **fields)

    async def test_absent(self, dial: Dialer) -> None:
        """No password at all is an empty one."""
        await refused(await dial(), 6000, "password", phone=new_phone())

    @pytest.mark.parametrize(
        ("password", "other"),
        [
            ("密" * 23 + "码", "密" * 23 + "室"),
            ("a" * 63 + "b", "a" * 63 + "c"),
            ("😀" * 17 + "😁", "😀" * 17 + "😂"),
            (" lkkzbl", "lkkzbl"),
            ("lkkzbl", "lkkzbl "),
            ("Lkkzbl", "lkkzbl"),
            ("é" * 6, "e\u0301" * 6),
            ("ｌｋｋｚｂｌ", "lkkzbl"),
        ],
    )
    async def test_to_the_last_byte(self, dial: Dialer, password: str, other: str) -> None:
        """A password is neither cut nor folded nor trimmed."""
        wire = await dial.user(password=password)
        again = await dial()
        await failed(again, 10000, "login", {}, phone=wire.phone, password=other)
        await again.login(wire.phone, password)


class TestPhones:
    """Every spelling is one documented normal form, or it is refused."""

    @pytest.mark.parametrize(
        ("status", "phone"),
        [
            (6003, ""),
            (6003, None),
            (6003, "   "),
            (8001, "1"),
            (8001, "1887074213"),
            (8001, "188707421380"),
            (8001, "018870742138"),
            (8001, "008618870742138"),
            (8001, "86 188-7074-2138"),
            (8001, "8618870742138"),
            (8001, 0),
            (8001, 1),
            (8001, 188707421380),
            (8001, -18870742138),
            (8001, "9" * 300),
            (8001, "+" + "1" * 16),
            (8000, "12870742138"),
            (8000, "28870742138"),
            (8000, 12870742138),
            (8000, "+018870742138"),
            (8000, "+1-555-555-0123"),
            (8000, "+1555555012a"),
            (8000, "+"),
            (8000, "++18870742138"),
        ],
    )
    async def test_refused(self, dial: Dialer, status: int, phone: object) -> None:
        """Empty 6003; not 11 digits, or over 15 behind a plus 8001; otherwise no phone 8000."""
        await refused(await dial(), status, "phone", phone=phone, password=PASSWORD)

    @pytest.mark.parametrize(
        "phone",
        [
            "1887074213a",
            "188 7074213",
            "１８８７０７４２１３８",
            "١٨٨٧٠٧٤٢١٣٨",
            "1887074213\u0661",
            "1.8870742e9",
            "1887074213\n1",
            "1\n2026-11-24 INFO admin logged in",
        ],
    )
    async def test_no_digits(self, dial: Dialer, phone: str) -> None:
        """What holds anything but ASCII digits is no phone: by its length, or by its format."""
        wire = await dial()
        reply = await wire.command("register", phone=phone, password=PASSWORD)
        assert reply["status"] in (8000, 8001), reply
        assert reply["field"] == "phone"

    async def test_spellings(self, dial: Dialer) -> None:
        """String and number, +86, and blanks around it are the same phone, shown as 11 digits."""
        phone = new_phone()
        for spelling in (phone, int(phone), f"+86{phone}", f" {phone} ", f"\t{phone}\n"):
            other = new_phone()
            registered = await dial()
            fresh = _respell(spelling, phone, other)
            account = await registered.ok("register", phone=fresh, password=PASSWORD)
            assert account["account"] == account["user"]["phone"] == other
            for again in (other, int(other), f"+86{other}", f" {other} "):
                await refused(await dial(), 7001, "phone", phone=again, password=PASSWORD)
                assert (await (await dial()).ok("login", phone=again, password=PASSWORD))[
                    "user"
                ] == account["user"]

    @pytest.mark.parametrize("form", ["{}.0", "{:.10e}"])
    async def test_number_forms(self, dial: Dialer, form: str) -> None:
        """The same number written as 1.8e10 is the same phone, or a bad field."""
        wire, phone = await dial(), new_phone()
        written = form.format(int(phone))
        line = f'{{"cmd":"register","phone":{written},"password":"{PASSWORD}"}}'
        reply = await wire.exchange(line.encode())
        if reply["status"] == 1:
            assert reply["result"]["account"] == phone
        else:
            assert (reply["status"], reply["field"]) in ((4003, "phone"), (8000, "phone"))

    async def test_international(self, dial: Dialer) -> None:
        """A number with a plus is kept with it, and is not the one without."""
        number = new_phone()
        account = await (await dial()).register(f"+{number}")
        assert account["account"] == f"+{number}"
        await refused(await dial(), 7001, "phone", phone=f" +{number}", password=PASSWORD)
        assert (await (await dial()).register(number))["account"] == number

    async def test_fifteen_digits(self, dial: Dialer) -> None:
        """Up to 15 digits may stand behind the plus."""
        phone = f"+49{new_phone()}00"
        assert (await (await dial()).register(phone))["account"] == phone


class TestUsernames:
    """1 to 15 characters, nothing that hides or reorders, and one spelling of each."""

    @pytest.mark.parametrize(
        ("lead", "shown"),
        [
            ("", ""),
            ("国", "国"),
            ("a_b%\\'", "a_b%\\'"),
            ("ＡＢｃ", "ABc"),
            ("ｶﾞ", "ガ"),
            ("A\u0308", "\u00c4"),
            ("  x", "x"),
            ("\u3000x", "x"),
            ("a b", "a b"),
            ("😀", "😀"),
            ("1", "1"),
        ],
    )
    async def test_shown(self, dial: Dialer, lead: str, shown: str) -> None:
        """A name is shown as NFKC has it, without blanks around it."""
        tag = new_tag()
        account = await (await dial()).register(username=f"{lead}{tag}  ")
        assert account["user"]["username"] == shown + tag

    async def test_lengths(self, dial: Dialer) -> None:
        """1 to 15 characters after NFKC and trimming."""
        tag = new_tag()
        for name in (tag + "x" * 8, tag + "密" * 8, tag + "😀" * 8, f"   {tag}{'y' * 8}   "):
            assert (await (await dial()).register(username=name))["user"][
                "username"
            ] == name.strip()
        wire = await dial()
        for name in (tag + "x" * 9, "密" * 16, "ﷺ", "x" * 300, "㍿" * 4):
            fields = {"phone": new_phone(), "password": PASSWORD, "username": name}
            await refused(wire, 8004, "username", **fields)

    async def test_blank(self, dial: Dialer) -> None:
        """A name of blanks is none."""
        assert (await (await dial()).register(username=" \u3000 "))["user"]["username"] == ""

    @pytest.mark.parametrize(
        "name",
        [
            "a\nb",
            "a\x01b",
            "a\x1b[2J",
            "a\x7fb",
            "a\x85b",
            "a\u202eb",
            "a\u2066b",
            "a\u200bb",
            "a\u200db",
            "a\u00adb",
            "a\ufeffb",
            "a\u2028b",
            "\U000e0041a",
            "\u3164",
            "\u2800",
            "\u115f",
            "12345",
            "１２３",
            "١٢٣",
            "１23",
            "system",
            "System",
            "ADMIN",
            "ａｄｍｉｎ",
            " admin ",
            "系统",
            "管理员",
            "ad\u034fmin",
        ],
    )
    async def test_illegal(self, dial: Dialer, name: str) -> None:
        """Control, format and bidirectional characters, all digits, and reserved names: 9000."""
        fields = {"phone": new_phone(), "password": PASSWORD, "username": name}
        await refused(await dial(), 9000, "username", **fields)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("", ""),
            ("straße", "STRASSE"),
            ("Ärzte", "ärzte"),
            ("Ärzte", "A\u0308RZTE"),
            ("ＡＢ", "ab"),
            ("ﬁ", "FI"),
            ("σ", "ς"),
            ("ab", "a\u034fb"),
            ("a❤", "a❤\ufe0f"),
            ("①", "1"),
            ("K", "\u212a"),
        ],
    )
    async def test_unique(self, dial: Dialer, one: str, other: str) -> None:
        """Width, case, composition and invisible characters do not make another name."""
        tag = new_tag()
        await dial.user(username=one + tag)
        fields = {"phone": new_phone(), "password": PASSWORD}
        wire = await dial()
        for name in (other + tag, other + tag.upper(), f" {other}{tag}"):
            await refused(wire, 7000, "username", **fields, username=name)

    async def test_marks_make_another_name(self, dial: Dialer) -> None:
        """Accents, and names that only begin alike, are different names."""
        tag = new_tag()
        for name in (f"u{tag}", f"ü{tag}", f"u{tag}2", f"u_{tag}", f"u {tag}"):
            await dial.user(username=name)


class TestRaces:
    """Many want one thing at the same moment: one gets it, the others are told so."""

    async def test_one_phone(self, dial: Dialer) -> None:
        """Twenty registrations of one phone make one account; nineteen get 7001."""
        await _race(dial, 7001, lambda: {"phone": new_phone()})

    async def test_one_username(self, dial: Dialer) -> None:
        """Twenty registrations of one name make one account; nineteen get 7000."""
        await _race(dial, 7000, lambda: {"username": new_name()})


async def _race(dial: Dialer, loser: int, drawn: Any) -> None:
    wires = [await dial() for _ in range(20)]
    for _ in range(ROUNDS // 4):  # each has ten times the contenders of other races
        shared = drawn()
        replies = await at_once(
            *(
                (
                    wire,
                    {"cmd": "register", "phone": new_phone(), "password": PASSWORD} | shared,
                )
                for wire in wires
            )
        )
        assert sorted(reply["status"] for reply in replies) == [1] + [loser] * 19
        for wire, reply in zip(wires, replies, strict=True):
            if reply["status"] == 1:
                await wire.ok("logout")
            else:
                assert reply["result"] == {}


def _respell(spelling: object, phone: str, other: str) -> object:
    """Write another phone as this one is written."""
    if isinstance(spelling, int):
        return int(other)
    assert isinstance(spelling, str)
    return spelling.replace(phone, other)
