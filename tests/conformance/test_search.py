"""Section 3, `search`: names folded and literal, phones whole, and nobody lists all users."""

import asyncio
from typing import Any

import pytest

from .people import (
    ONE_LOOP,
    USER,
    all_pages,
    assert_envelope,
    failed,
    ids,
    limited,
    make_friends,
    new_tag,
    users,
)
from .process import StartServer
from .wire import Dialer, Wire, new_phone


async def found(wire: Wire, **fields: object) -> list[str]:
    """Return the ids that a search finds; status 0 goes with an empty list and only with it."""
    reply = await wire.command("search", **fields)
    assert reply["status"] == (1 if reply["result"] else 0), reply
    assert reply["message"] == "ok", reply
    return ids(reply["result"])


async def many(dial: Dialer, count: int) -> tuple[str, list[str]]:
    """Register users whose names hold one tag; return it and their ids."""
    tag = new_tag()
    made = []
    for number in range(count):
        wire = await dial.user(username=f"{tag}{number}")
        made.append(wire.user_id)
        wire.close()
    return tag, made


@ONE_LOOP
class TestShape:
    """A list of users in the envelope; status 0 when nobody is found."""

    async def test_found(self, dial: Dialer) -> None:
        """Users as the caller may see them."""
        tag = new_tag()
        a, b = await dial.user(), await dial.user(username=f"x{tag}")
        reply = await a.command("search", username=tag)
        assert_envelope(reply, "search", list)
        assert (reply["status"], reply["message"]) == (1, "ok")
        [user] = reply["result"]
        assert set(user) == USER
        assert (user["id"], user["username"], user["phone"]) == (b.user_id, f"x{tag}", "")

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"username": ""},
            {"username": None},
            {"phone": ""},
            {"field": ""},
            {"field": None, "username": None, "phone": None},
            {"phone": "13"},
            {"phone": "abc"},
            {"phone": 5},
            {"phone": "+"},
            {"username": "nobody is called so"},
            {"username": "x" * 300},
            {"username": "\u200b" * 300},
            {"field": "nobody is called so"},
        ],
    )
    async def test_empty(self, dial: Dialer, fields: Any) -> None:
        """Nothing to look for, or nobody found: status 0, [], "ok" [given]."""
        reply = await (await dial.user()).command("search", **fields)
        assert_envelope(reply, "search", list)
        assert (reply["status"], reply["result"], reply["message"]) == (0, [], "ok")

    @pytest.mark.parametrize(
        ("field", "fields"),
        [
            ("username", {"username": 5}),
            ("username", {"username": "x" * 301}),
            ("username", {"username": "a\0"}),
            ("phone", {"phone": {}}),
            ("phone", {"phone": 2**53}),
            ("field", {"field": 1}),
            ("page", {"username": "a", "page": -1}),
            ("page", {"username": "a", "page": "-1"}),
            ("page", {"username": "a", "page": "x"}),
            ("page", {"username": "a", "page": "after:"}),
            ("page", {"username": "a", "page": "after:x"}),
            ("page", {"username": "a", "page": "after:1.2.3"}),
            ("page", {"username": "a", "page": 1.5}),
            ("page", {"username": "a", "page": [0]}),
            ("page", {"username": "a", "page": 2**53}),
            ("page", {"username": "a", "page": "9" * 40}),
            ("page", {"phone": "13800000000", "page": -1}),
            ("page", {"page": -1}),
            ("size", {"username": "a", "size": 0}),
            ("size", {"username": "a", "size": 101}),
            ("size", {"username": "a", "size": -1}),
            ("size", {"username": "a", "size": "x"}),
        ],
    )
    async def test_bad_fields(self, dial: Dialer, field: str, fields: Any) -> None:
        """A bad value: 4003 with its field and an empty list."""
        await failed(await dial.user(), 4003, "search", [], field, **fields)


@ONE_LOOP
class TestNames:
    """A name is found by any part of it, however that is written."""

    @pytest.mark.parametrize(
        ("lead", "words"),
        [
            ("Ärzte", "ärzte"),
            ("Ärzte", "A\u0308RZTE"),
            ("ärzte", "ÄRZTE"),
            ("ärzte", "rzte"),
            ("rzteA\u0308", "Ä"),
            ("中国人民", "国人民"),
            ("中国人民", "民"),
            ("İstanbul", "istanbul"),
            ("istanbul", "İSTANBUL"),
            ("ſtraße", "STRASSE"),
            ("STRASSE", "straße"),
            ("ＷＩＤＥ", "wide"),
            ("wide", "ＷＩＤＥ"),
            ("ΣΊΣΥΦΟΣ", "σίσυφος"),
            ("ｶﾞ", "ガ"),
            ("a_b", "_b"),
            ("100%", "0%"),
            ("a\\b", "\\b"),
            ("'; --", "; --"),
            ('"*?[]', "?[]"),
            ("a b", " b"),
            ("😀", "😀"),
        ],
    )
    async def test_part(self, dial: Dialer, lead: str, words: str) -> None:
        """Folded and literal, from any character on, by `username` and by `field`."""
        tag = new_tag()
        user = await dial.user(username=lead + tag)
        searcher = await dial.user()
        for part in (words + tag, (words + tag).upper(), words + tag[:-1]):
            assert user.user_id in await found(searcher, username=part)
            assert user.user_id in await found(searcher, field=part)

    @pytest.mark.parametrize(
        ("lead", "words"),
        [
            ("axb", "a_b"),
            ("axb", "a%b"),
            ("axb", "a*b"),
            ("axb", "a?b"),
            ("axb", "a.b"),
            ("axb", "[a]xb"),
            ("axb", "a\\xb"),
            ("ärzte", "arzte"),
            ("arzte", "ärzte"),
            ("ab", "a b"),
            ("", "%"),
            ("", "_"),
        ],
    )
    async def test_no_wildcards(self, dial: Dialer, lead: str, words: str) -> None:
        """No character stands for another one."""
        tag = new_tag()
        await dial.user(username=lead + tag)
        assert await found(await dial.user(), username=words + tag) == []

    @pytest.mark.parametrize("mark", ["%", "_", "\\", "'", '"'])
    async def test_single_marks(self, dial: Dialer, mark: str) -> None:
        """A character alone finds the names with it and no others."""
        tag = new_tag()
        await dial.user(username=f"{tag}{mark}")
        await dial.user(username=tag)
        names = [
            user["username"]
            for user in await all_pages(await dial.user(), "search", username=mark, size=100)
        ]
        assert f"{tag}{mark}" in names
        assert all(mark in name for name in names)

    async def test_one_letter(self, dial: Dialer) -> None:
        """One letter is a part like any other."""
        tag = new_tag()
        await dial.user(username=tag)
        assert (await (await dial.user()).command("search", username=tag[0]))["status"] == 1

    async def test_oneself_and_friends(self, dial: Dialer) -> None:
        """One is found by oneself; a friend is shown as such, with phone and alias."""
        tag = new_tag()
        a, b = await dial.user(username=f"{tag}a"), await dial.user(username=f"{tag}b")
        await make_friends(a, b)
        await a.ok("set_alias", userId=b.user_id, alias="Bee")
        own, friend = await a.ok("search", username=tag)
        assert (own["id"], own["phone"], own["isFriend"]) == (a.user_id, a.phone, False)
        assert (friend["phone"], friend["isFriend"], friend["alias"]) == (b.phone, True, "Bee")

    async def test_a_changed_name(self, dial: Dialer) -> None:
        """At once the new name is found and the old one is not."""
        tag = new_tag()
        a, b = await dial.user(username=f"{tag}old"), await dial.user()
        await a.ok("complete_account", username=f"new{tag}")
        assert await found(b, username=f"{tag}old") == []
        assert await found(b, username=f"NEW{tag}") == [a.user_id]

    async def test_no_name_no_hit(self, dial: Dialer) -> None:
        """Who has no name is found by none, and not by the phone as a name."""
        a, b = await dial.user(), await dial.user()
        assert await found(b, username=a.phone) == []
        assert await found(b, username=a.phone[:8]) == []


@ONE_LOOP
class TestPhones:
    """A phone is found only whole; it is shown to who knew it."""

    async def test_whole(self, dial: Dialer) -> None:
        """Every spelling of the whole phone finds it, and shows it."""
        a, b = await dial.user(), await dial.user()
        for fields in (
            {"phone": a.phone},
            {"phone": int(a.phone)},
            {"phone": f"+86{a.phone}"},
            {"phone": f" {a.phone} "},
            {"field": a.phone},
            {"field": f"+86{a.phone}"},
        ):
            reply = await b.command("search", **fields)
            [user] = reply["result"]
            assert (reply["status"], user["id"], user["phone"]) == (1, a.user_id, a.phone)
            assert "next" not in reply
            assert user["isFriend"] is False
        # Having searched by it shows it in that answer only.
        assert (await b.ok("account", userId=a.user_id))["account"] == ""

    async def test_parts(self, dial: Dialer) -> None:
        """No part of it finds anybody, by any field."""
        a, b = await dial.user(), await dial.user()
        for part in (a.phone[:-1], a.phone[1:], a.phone[3:8], f"{a.phone[:-1]}%", "%", "_" * 11):
            for name in ("phone", "field", "username"):
                assert a.user_id not in await found(b, **{name: part})
        assert await found(b, phone=int(a.phone[:-1])) == []

    async def test_pages(self, dial: Dialer) -> None:
        """There is one page."""
        a, b = await dial.user(), await dial.user()
        assert await found(b, phone=a.phone, page=0) == [a.user_id]
        assert await found(b, phone=a.phone, page=1) == []

    async def test_international(self, dial: Dialer) -> None:
        """A phone with a plus is found by it and not by its digits."""
        number = new_phone()
        a, b = await dial.user(phone=f"+{number}"), await dial.user()
        assert await found(b, phone=f"+{number}") == [a.user_id]
        assert await found(b, field=f"+{number}") == [a.user_id]
        assert await found(b, phone=number) == []


@ONE_LOOP
class TestPages:
    """Ten entries, or `size` of them; `next` leads to all of them once."""

    async def test_next(self, dial: Dialer) -> None:
        """By `next` each is found once, though others come meanwhile."""
        tag, expected = await many(dial, 23)
        wire = await dial.user()
        seen: list[str] = []
        reply = await wire.command("search", username=tag)
        while True:
            seen += ids(reply["result"])
            added = await dial.user(username=f"{tag}+{len(seen)}")
            if "next" not in reply:
                break
            assert len(reply["result"]) == 10
            expected.append(added.user_id)
            reply = await wire.command("search", username=tag, page=reply["next"])
        assert seen == expected

    async def test_numbers(self, dial: Dialer) -> None:
        """The first page is 0; numbers may be strings; the last one has no `next`."""
        tag, expected = await many(dial, 20)
        wire = await dial.user()
        for page, part in ((0, expected[:10]), (1, expected[10:]), (2, []), (99, [])):
            for form in (page, str(page)):
                reply = await wire.command("search", username=tag, page=form)
                assert ids(reply["result"]) == part
                assert reply["status"] == (1 if part else 0)
                assert ("next" in reply) == (page == 0)
        for form in (None, ""):
            assert await found(wire, username=tag, page=form) == expected[:10]
        assert await found(wire, username=tag, size=100) == expected
        assert await found(wire, username=tag, size=7, page=2) == expected[14:]
        assert ids(await all_pages(wire, "search", username=tag, size=3)) == expected


class TestBudgets:
    """Searches are budgeted per account; those by phone apart."""

    async def test_apart(self, server: StartServer) -> None:
        """Each kind has its own; another account, and other commands, are not touched."""
        own = server(limits_searches=3, limits_phone_searches=2)
        wire, other = await users(own.dial, 2)
        for _ in range(2):
            assert await found(wire, phone=new_phone()) == []
        assert await limited(wire, "search", [], phone=new_phone()) <= 3600
        assert await limited(wire, "search", [], field=new_phone()) <= 3600
        for _ in range(3):
            await wire.command("search", username="a")
        assert await limited(wire, "search", [], username="a") <= 3600
        await limited(wire, "search", [], field="a")
        await limited(wire, "search_messages", [], text="a")
        await wire.ok("friends")
        again = await own.dial()
        await again.login(wire.phone)
        await limited(again, "search", [], username="a")
        await other.command("search", username="a")


async def test_while_writing(dial: Dialer) -> None:
    """Searching and changing names at once disturbs neither."""
    tag = new_tag()
    wires = await users(dial, 6)

    async def rename(wire: Wire, number: int) -> None:
        for turn in range(10):
            await wire.ok("complete_account", username=f"{tag}{number}.{turn}")
            assert wire.user_id in await found(wire, username=tag)

    await asyncio.gather(*(rename(wire, number) for number, wire in enumerate(wires)))
    assert sorted(await found(wires[0], username=tag)) == sorted(wire.user_id for wire in wires)
