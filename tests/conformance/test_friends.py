"""Section 3, people: asking, accepting, ending, names of one's own, blocks and presence."""

from typing import Any

import pytest

from .people import (
    ACCOUNT,
    ONE_LOOP,
    ROUNDS,
    USER,
    all_pages,
    assert_envelope,
    at_once,
    failed,
    ids,
    is_date,
    limited,
    make_friends,
    new_tag,
    users,
)
from .process import StartServer
from .wire import Dialer, Frame, Wire, befriend, client_id, content, frame, pair_chat, text

# The commands about one user, all of which answer with that user.
ABOUT_ONE = (
    "add_friend",
    "accept_friend",
    "reject_friend",
    "delete_friend",
    "set_alias",
    "block",
    "unblock",
)


async def friends_of(wire: Wire, **fields: object) -> list[str]:
    """Return the ids of all friends."""
    return ids(await all_pages(wire, "friends", **fields))


async def requests_of(wire: Wire) -> list[str]:
    """Return the ids of all who wait for an answer."""
    return ids(await all_pages(wire, "friend_requests"))


async def assert_friends(a: Wire, b: Wire, expected: bool = True) -> None:
    """Require that both sides agree, in every place, on whether they are friends."""
    for one, other in ((a, b), (b, a)):
        assert (other.user_id in await friends_of(one)) == expected
        user = (await one.ok("account", userId=other.user_id))["user"]
        assert user["isFriend"] == expected
        assert (user["phone"] != "") == expected
        own = (await one.ok("account"))["user"]
        assert own["friends"] == len(await friends_of(one))


class TestAsking:
    """One asks, the other one is told and answers."""

    async def test_request(self, dial: Dialer) -> None:
        """The account of the one asked; they get a message of type 2 with its event."""
        a, b = await dial.user(), await dial.user(started=True)
        reply = await a.command("add_friend", userId=b.user_id, description="I am A")
        assert_envelope(reply, "add_friend", dict)
        assert (reply["status"], set(reply["result"])) == (1, ACCOUNT)
        assert set(reply["result"]["user"]) == USER
        assert reply["result"]["user"]["id"] == b.user_id
        assert reply["result"]["account"] == reply["result"]["user"]["phone"] == ""
        [asked] = await b.expect_delivery(ack=True)
        assert (asked["type"], asked["fromId"], asked["toId"]) == ("2", a.user_id, b.user_id)
        assert asked["chatId"] == pair_chat(a, b)
        assert content(asked) == "I am A"
        assert asked["event"] == {
            "name": "friend_request",
            "userId": a.user_id,
            "description": "I am A",
        }
        await assert_friends(a, b, False)

    async def test_list(self, dial: Dialer) -> None:
        """Who waits for the caller, with what they said and when."""
        a, b = await users(dial, 2)
        assert await b.ok("friend_requests") == []
        await a.ok("add_friend", userId=b.user_id, description="hello")
        reply = await b.command("friend_requests")
        assert_envelope(reply, "friend_requests", list)
        [entry] = reply["result"]
        assert set(entry) == {"user", "description", "date"}
        assert (entry["user"]["id"], entry["description"]) == (a.user_id, "hello")
        assert set(entry["user"]) == USER
        assert entry["user"]["phone"] == ""
        assert is_date(entry["date"])
        assert await a.ok("friend_requests") == []

    @pytest.mark.parametrize("absent", [{}, {"description": None}, {"description": ""}])
    async def test_without_a_description(self, dial: Dialer, absent: Any) -> None:
        """It is optional; the message still says something to people."""
        a, b = await dial.user(), await dial.user(started=True)
        await a.ok("add_friend", userId=b.user_id, **absent)
        [asked] = await b.expect_delivery()
        assert asked["event"]["description"] == ""
        assert content(asked)
        assert (await b.ok("friend_requests"))[0]["description"] == ""

    async def test_accept(self, dial: Dialer) -> None:
        """The user, who is a friend now; the asker gets a system message with the event."""
        a, b = await dial.user(started=True), await dial.user()
        await a.ok("add_friend", userId=b.user_id)
        reply = await b.command("accept_friend", userId=a.user_id)
        assert_envelope(reply, "accept_friend", dict)
        assert (reply["status"], set(reply["result"])) == (1, USER)
        user = reply["result"]
        assert (user["id"], user["phone"], user["isFriend"]) == (a.user_id, a.phone, True)
        assert user["friends"] == 1
        [told] = await a.expect_delivery()
        assert (told["type"], told["fromId"], told["chatId"]) == ("0", "", "system")
        assert told["event"]["name"] == "friend_accepted"
        assert told["event"]["userId"] == b.user_id
        await assert_friends(a, b)
        assert await requests_of(b) == []

    async def test_both_ask(self, dial: Dialer) -> None:
        """If they had asked already, asking makes both friends; the first asker is told."""
        a, b = await dial.user(started=True), await dial.user(started=True)
        await a.ok("add_friend", userId=b.user_id)
        await b.expect_delivery(ack=True)
        account = await b.ok("add_friend", userId=a.user_id)
        assert account["user"]["isFriend"] is True
        assert account["account"] == a.phone
        [told] = await a.expect_delivery(ack=True)
        assert told["event"]["name"] == "friend_accepted"
        assert told["event"]["userId"] == b.user_id
        await b.expect_nothing()
        await assert_friends(a, b)
        assert await requests_of(a) == await requests_of(b) == []

    async def test_by_message(self, dial: Dialer) -> None:
        """A message of type 2 is `add_friend` with its text as description."""
        a, b = await dial.user(), await dial.user(started=True)
        await a.post(text(b.user_id, "by message", type="2"))
        [asked] = await b.expect_delivery()
        assert asked["event"]["description"] == "by message"
        [entry] = await b.ok("friend_requests")
        assert (entry["user"]["id"], entry["description"]) == (a.user_id, "by message")
        await b.ok("accept_friend", userId=a.user_id)
        await assert_friends(a, b)

    async def test_both_ask_by_message(self, dial: Dialer) -> None:
        """A list does what the command does: friends, `friend_accepted`, and no message."""
        a, b = await dial.user(started=True), await dial.user(started=True)
        other = await dial.device(b)
        await a.ok("add_friend", userId=b.user_id)
        for each in (b, other):
            await each.expect_delivery(ack=True)
        mine = client_id()
        row = await b.say(a.user_id, "yes", type="2", clientId=mine)
        assert row["chatId"] == pair_chat(a, b)
        [told] = await a.expect_delivery(ack=True)
        assert (told["event"]["name"], told["event"]["userId"]) == ("friend_accepted", b.user_id)
        await a.expect_nothing()
        await other.expect_nothing()
        await assert_friends(a, b)
        assert await requests_of(a) == await requests_of(b) == []
        # No chat shows it, and nobody finds it; its clientId stands for it all the same.
        for one, peer in ((a, b), (b, a)):
            shown = await one.ok("history", userId=peer.user_id)
            assert [each["fromId"] for each in shown] == [a.user_id]
            [entry] = [each for each in await one.ok("chats") if each["kind"] == "pair"]
            assert entry["last"]["msgId"] == shown[0]["msgId"]
            assert entry["unread"] == (one is b)
        assert await b.say(a.user_id, "yes", type="2", clientId=mine) == row
        await b.refused(4003, frame([text(a.user_id, "no", type="2", clientId=mine)]))

    async def test_twice_in_one_list(self, dial: Dialer) -> None:
        """Two requests in one list are one, also where the first of them makes friends."""
        a, b = await users(dial, 2)
        await a.post(*(text(b.user_id, words, type="2") for words in ("one", "two")))
        [entry] = await b.ok("friend_requests")
        assert entry["description"] == "two"
        assert len(await b.ok("history", userId=a.user_id)) == 1
        await b.post(*(text(a.user_id, words, type="2") for words in ("one", "two")))
        await assert_friends(a, b)
        assert await requests_of(a) == await requests_of(b) == []

    async def test_twice(self, dial: Dialer) -> None:
        """Asking again, by command or message, makes no second request and tells nobody."""
        a, b = await dial.user(), await dial.user(started=True)
        await a.ok("add_friend", userId=b.user_id)
        await b.expect_delivery(ack=True)
        await a.ok("add_friend", userId=b.user_id)
        await a.say(b.user_id, "again", type="2")
        await b.expect_nothing()
        [entry] = await b.ok("friend_requests")
        assert entry["description"] == "again"
        await b.ok("reject_friend", userId=a.user_id)
        for _ in range(2):
            await a.ok("add_friend", userId=b.user_id)
        assert await requests_of(b) == [a.user_id]
        await b.ok("accept_friend", userId=a.user_id)
        assert await requests_of(b) == []

    async def test_reject(self, dial: Dialer) -> None:
        """The user; nobody is told, no friendship, and one may ask again."""
        a, b = await dial.user(started=True), await dial.user()
        await a.ok("add_friend", userId=b.user_id)
        reply = await b.command("reject_friend", userId=a.user_id)
        assert_envelope(reply, "reject_friend", dict)
        assert (set(reply["result"]), reply["result"]["id"]) == (USER, a.user_id)
        assert reply["result"]["isFriend"] is False
        assert await requests_of(b) == []
        await a.expect_nothing()
        await assert_friends(a, b, False)
        await failed(b, 4005, "accept_friend", {}, "userId", userId=a.user_id)
        await a.ok("add_friend", userId=b.user_id)
        await b.ok("accept_friend", userId=a.user_id)

    async def test_already_friends(self, dial: Dialer) -> None:
        """12000 for asking or accepting a friend."""
        a, b = await users(dial, 2)
        await make_friends(a, b)
        for one, other in ((a, b), (b, a)):
            await failed(one, 12000, "add_friend", {}, "userId", userId=other.user_id)
            await failed(one, 12000, "accept_friend", {}, "userId", userId=other.user_id)
            message = text(other.user_id, "again", type="2")
            await one.refused(12000, frame([message]))

    async def test_without_a_request(self, dial: Dialer) -> None:
        """There is nothing to accept or reject: 4005; one's own request is none."""
        a, b = await users(dial, 2)
        await a.ok("add_friend", userId=b.user_id)
        for cmd in ("accept_friend", "reject_friend"):
            await failed(a, 4005, cmd, {}, "userId", userId=b.user_id)
        await assert_friends(a, b, False)

    async def test_delete(self, dial: Dialer) -> None:
        """Both sides end at once: nothing goes between them any more."""
        a, b = await dial.pair()
        await a.send_line({"cmd": "delete_friend", "userId": b.user_id})
        assert (await a.reply())["result"]["isFriend"] is False
        for one, other in ((a, b), (b, a)):
            await one.refused(4004, frame([text(other.user_id, "x")]))
            await failed(one, 4004, "delete_friend", {}, "userId", userId=other.user_id)
            await failed(one, 4004, "set_alias", {}, "userId", userId=other.user_id, alias="x")
        await assert_friends(a, b, False)
        await make_friends(a, b)
        await assert_friends(a, b)

    async def test_delete_then_pipelined(self, dial: Dialer) -> None:
        """What is pipelined behind the end of a friendship does not arrive."""
        a, b = await dial.pair()
        await a.send_line(frame([text(b.user_id, "before")], a.push_id))
        await a.send_line({"cmd": "delete_friend", "userId": b.user_id})
        await a.send_line(frame([text(b.user_id, "after")], a.push_id))
        assert [(await a.reply())["status"] for _ in range(3)] == [1, 1, 4004]
        [got] = await b.expect_delivery()
        assert content(got) == "before"
        await b.expect_nothing()

    async def test_durable(self, server: StartServer) -> None:
        """Friendships, requests, aliases and blocks outlive a crash."""
        own = server()
        a, b, c, d = await users(own.dial, 4)
        await make_friends(a, b)
        await a.ok("set_alias", userId=b.user_id, alias="Bee")
        await c.ok("add_friend", userId=a.user_id, description="see?")
        await a.ok("block", userId=d.user_id)
        phone = a.phone
        before = [await a.command(cmd) for cmd in ("friends", "friend_requests", "blocked")]
        own.restart()
        a = await own.dial()
        await a.login(phone)
        after = [await a.command(cmd) for cmd in ("friends", "friend_requests", "blocked")]
        assert [each["result"] for each in after] == [each["result"] for each in before]
        assert all(each["result"] for each in after)


class TestRefusals:
    """What all commands about one user have in common."""

    @pytest.mark.parametrize("cmd", ABOUT_ONE)
    async def test_unknown_users(self, dial: Dialer, cmd: str) -> None:
        """A user id that is unknown: 6004."""
        wire = await dial.user()
        for user in ("1", "0", "-1", "abc", "9007199254740991", "9" * 30, "10001 "):
            await failed(wire, 6004, cmd, {}, "userId", userId=user, alias="x")

    @pytest.mark.parametrize("cmd", ABOUT_ONE)
    async def test_no_user(self, dial: Dialer, cmd: str) -> None:
        """Absent, null and "": 4003, as for a wrong type."""
        wire = await dial.user()
        for given in ({}, {"userId": None}, {"userId": ""}, {"userId": 10001}, {"userId": [""]}):
            await failed(wire, 4003, cmd, {}, "userId", alias="x", **given)

    @pytest.mark.parametrize(
        ("cmd", "statuses"),
        [
            ("add_friend", {4004}),
            ("accept_friend", {4004, 4005}),
            ("reject_friend", {4004, 4005}),
            ("delete_friend", {4004}),
            ("set_alias", {4004}),
            ("block", {4004}),
        ],
    )
    async def test_oneself(self, dial: Dialer, cmd: str, statuses: set[int]) -> None:
        """One is not one's own friend, nor blocks oneself."""
        wire = await dial.user()
        reply = await wire.command(cmd, userId=wire.user_id, alias="x")
        assert reply["status"] in statuses, reply
        assert reply["result"] == {}
        assert (await wire.ok("account"))["user"]["friends"] == 0
        assert await wire.ok("blocked") == []

    @pytest.mark.parametrize(
        ("cmd", "field", "value"),
        [
            ("add_friend", "description", "x" * 201),
            ("add_friend", "description", 5),
            ("add_friend", "description", "a\0"),
            ("set_alias", "alias", "x" * 51),
            ("set_alias", "alias", ["x"]),
            ("set_alias", "alias", None),
        ],
    )
    async def test_bad_fields(self, dial: Dialer, cmd: str, field: str, value: object) -> None:
        """A bad field is named, and nothing is done."""
        a, b, c = await users(dial, 3)
        await make_friends(a, b)
        other = b if cmd == "set_alias" else c
        await failed(a, 4003, cmd, {}, field, userId=other.user_id, **{field: value})
        assert await requests_of(c) == []
        assert (await a.ok("account", userId=b.user_id))["user"]["alias"] == ""

    @pytest.mark.parametrize("cmd", ["friends", "friend_requests", "blocked"])
    async def test_bad_pages(self, dial: Dialer, cmd: str) -> None:
        """Pages are 0 and up or a `next`, sizes 1 to 100: else 4003."""
        wire = await dial.user()
        for page in (-1, "-1", "x", 1.5, [], True, "after:", "after:x", "9" * 30):
            await failed(wire, 4003, cmd, [], "page", page=page)
        await wire.fence()
        for size in (0, -1, 101, "x", 2**53):
            await failed(wire, 4003, cmd, [], "size", size=size)
        for page in (0, "0", 1, "2", 99, None, ""):
            reply = await wire.command(cmd, page=page)
            assert_envelope(reply, cmd, list)
            assert (reply["status"], reply["result"]) == (1, [])


class TestLists:
    """Ten entries a page, or `size`; each once, though the list grows meanwhile."""

    async def test_friends(self, dial: Dialer) -> None:
        """By `next` every friend once; by number pages of ten; the last without `next`."""
        wire, *others = await users(dial, 24)
        late = others.pop(0)
        await make_friends(wire, *others[:-3])
        seen: list[str] = []
        added = [others[-3], others[-2], others[-1], late]
        reply = await wire.command("friends")
        assert_envelope(reply, "friends", list, "next")
        while True:
            assert all(set(user) == USER for user in reply["result"])
            seen += ids(reply["result"])
            if "next" not in reply:
                break
            await make_friends(wire, added.pop())
            reply = await wire.command("friends", page=reply["next"])
        assert len(seen) == len(set(seen))
        assert {other.user_id for other in others[:-3]} <= set(seen)
        everybody = await friends_of(wire, size=100)
        assert await friends_of(wire, size=7) == everybody
        by_number = [ids(await wire.ok("friends", page=page)) for page in range(4)]
        assert [each for page in by_number for each in page] == everybody
        assert [len(page) for page in by_number[:2]] == [10, 10]
        assert by_number[3] == []

    async def test_filter(self, dial: Dialer) -> None:
        """`field` looks into names and aliases, folded and literal."""
        tag = new_tag()
        wire = await dial.user()
        a = await dial.user(username=f"Ä国人{tag}")
        b, c = await users(dial, 2)
        await make_friends(wire, a, b, c)
        await wire.ok("set_alias", userId=b.user_id, alias="Große 50%")
        for words, expected in (
            (f"ä国人{tag}".upper(), [a]),
            ("国人", [a]),
            ("人", [a]),
            ("GROSSE", [b]),
            ("0%", [b]),
            ("%", [b]),
            ("_", []),
            ("nobody", []),
            ("x" * 300, []),
            ("", [a, b, c]),
            (None, [a, b, c]),
        ):
            reply = await wire.command("friends", field=words)
            assert reply["status"] == 1
            assert ids(reply["result"]) == [friend.user_id for friend in expected]
        assert ids(await wire.ok("friends", field=tag, size=1)) == [a.user_id]
        await failed(wire, 4003, "friends", [], "field", field=5)
        await failed(wire, 4003, "friends", [], "field", field="x" * 301)

    async def test_requests(self, dial: Dialer) -> None:
        """Newest first; by `next` each once, though others ask meanwhile."""
        wire, *askers = await users(dial, 24)
        for asker in askers[:21]:
            await asker.ok("add_friend", userId=wire.user_id)
        late = askers[21:]
        seen: list[str] = []
        reply = await wire.command("friend_requests")
        assert_envelope(reply, "friend_requests", list, "next")
        while True:
            seen += ids(reply["result"])
            if "next" not in reply:
                break
            await late.pop().ok("add_friend", userId=wire.user_id)
            reply = await wire.command("friend_requests", page=reply["next"])
        assert seen == [asker.user_id for asker in reversed(askers[:21])]
        everybody = await requests_of(wire)
        assert len(everybody) == len(set(everybody)) == 23
        pages = [ids(await wire.ok("friend_requests", page=page, size=10)) for page in (0, 1, 2)]
        assert [each for page in pages for each in page] == everybody

    async def test_blocked(self, dial: Dialer) -> None:
        """Users in pages; one's own only."""
        wire, *others = await users(dial, 13)
        for other in others:
            await wire.ok("block", userId=other.user_id)
        reply = await wire.command("blocked")
        assert_envelope(reply, "blocked", list, "next")
        assert all(set(user) == USER for user in reply["result"])
        assert sorted(ids(await all_pages(wire, "blocked"))) == sorted(
            other.user_id for other in others
        )
        assert await others[0].ok("blocked") == []


class TestAlias:
    """A name of one's own for a friend."""

    async def test_set_and_cleared(self, dial: Dialer) -> None:
        """Shown to who gave it, everywhere, and to nobody else; "" clears it."""
        a, b, c = await users(dial, 3)
        await make_friends(b, a, c)
        reply = await a.command("set_alias", userId=b.user_id, alias=" 老板 ")
        assert_envelope(reply, "set_alias", dict)
        assert (set(reply["result"]), reply["result"]["alias"]) == (USER, "老板")
        assert (await a.ok("friends"))[0]["alias"] == "老板"
        assert (await a.ok("search", phone=b.phone))[0]["alias"] == "老板"
        assert (await a.ok("account", userId=b.user_id))["user"]["alias"] == "老板"
        assert (await c.ok("account", userId=b.user_id))["user"]["alias"] == ""
        assert (await b.ok("account"))["user"]["alias"] == ""
        assert (await b.ok("account", userId=a.user_id))["user"]["alias"] == ""
        cleared = await a.ok("set_alias", userId=b.user_id, alias="")
        assert cleared["alias"] == ""
        await a.ok("set_alias", userId=b.user_id, alias="x" * 50)

    async def test_strangers(self, dial: Dialer) -> None:
        """Only friends have one: 4004."""
        a, b = await users(dial, 2)
        await failed(a, 4004, "set_alias", {}, "userId", userId=b.user_id, alias="x")


class TestBlocks:
    """Nothing of a blocked person's comes to the caller."""

    async def test_block(self, dial: Dialer) -> None:
        """The user; types 1, 2 and 5 get 4004 from then on, also what is pipelined."""
        a, b = await dial.pair()
        reply = await a.command("block", userId=b.user_id)
        assert_envelope(reply, "block", dict)
        assert (reply["status"], set(reply["result"])) == (1, USER)
        assert reply["result"]["id"] == b.user_id
        for kind in ("1", "2", "5"):
            status = (await b.exchange(frame([text(a.user_id, "x", type=kind)])))["status"]
            assert status == (12000 if kind == "2" else 4004)
        await a.expect_nothing()
        assert ids(await a.ok("blocked")) == [b.user_id]
        assert await b.ok("blocked") == []

    async def test_strangers(self, dial: Dialer) -> None:
        """A blocked stranger cannot ask, in either way; what waited is gone."""
        a, b = await dial.user(started=True), await dial.user()
        await b.ok("add_friend", userId=a.user_id)
        await a.expect_delivery(ack=True)
        await a.ok("block", userId=b.user_id)
        assert await requests_of(a) == []
        await failed(b, 4004, "add_friend", {}, "userId", userId=a.user_id)
        await b.refused(4004, frame([text(a.user_id, "x", type="2")]))
        await a.expect_nothing()
        assert await requests_of(a) == []

    async def test_unblock(self, dial: Dialer) -> None:
        """The user; everything works again."""
        a, b = await dial.pair()
        await a.ok("block", userId=b.user_id)
        reply = await a.command("unblock", userId=b.user_id)
        assert_envelope(reply, "unblock", dict)
        assert (set(reply["result"]), reply["result"]["id"]) == (USER, b.user_id)
        assert await a.ok("blocked") == []
        await b.say(a.user_id, "again")
        [got] = await a.expect_delivery()
        assert content(got) == "again"

    async def test_twice(self, dial: Dialer) -> None:
        """Blocking and unblocking a second time change nothing."""
        a, b = await users(dial, 2)
        for _ in range(2):
            await a.ok("block", userId=b.user_id)
        assert ids(await a.ok("blocked")) == [b.user_id]
        for _ in range(2):
            await a.ok("unblock", userId=b.user_id)
        assert await a.ok("blocked") == []
        await b.ok("add_friend", userId=a.user_id)

    async def test_bites_at_once(self, dial: Dialer) -> None:
        """After the reply nothing enters, however much is under way."""
        a, b = await dial.pair()
        for _ in range(10):
            lines = [frame([text(a.user_id, "x")], b.push_id) for _ in range(20)]
            for line in lines:
                await b.send_line(line)
            await a.ok("block", userId=b.user_id)
            late = [frame([text(a.user_id, "late")], b.push_id) for _ in range(3)]
            for line in late:
                await b.send_line(line)
            statuses = [(await b.reply())["status"] for _ in range(23)]
            assert set(statuses[20:]) == {4004}
            assert set(statuses) <= {1, 4004}
            got = await a.take(statuses.count(1)) if statuses.count(1) else []
            assert all(content(message) == "x" for message in got)
            await a.expect_nothing()
            await a.ok("unblock", userId=b.user_id)

    async def test_typing(self, dial: Dialer) -> None:
        """A blocked person's typing is not shown."""
        a, b = await dial.pair(accept=["typing"])
        await a.ok("block", userId=b.user_id)
        await b.command("typing", userId=a.user_id)
        await a.expect_nothing()


class TestPresence:
    """Whether friends are online, and since when not."""

    async def test_shape(self, dial: Dialer) -> None:
        """One entry for each, in the order asked; the time only of who is away."""
        wire = await dial.user()
        on, never = await dial.user(started=True), await dial.user()
        away = await dial.user(started=True)
        await make_friends(wire, on, never, away)
        await away.send_line({"cmd": "quit"})
        await away.rest()
        asked = [away.user_id, on.user_id, never.user_id]
        reply = await wire.command("presence", userIds=asked)
        assert_envelope(reply, "presence", list)
        gone, here, absent = reply["result"]
        assert all(set(entry) == {"userId", "online", "lastSeen"} for entry in reply["result"])
        assert [entry["userId"] for entry in reply["result"]] == asked
        assert (here["online"], here["lastSeen"]) == (True, "")
        assert gone["online"] is False
        assert is_date(gone["lastSeen"])
        assert absent["online"] is False

    @pytest.mark.parametrize(
        ("field", "asked"),
        [
            ("userIds", None),
            ("userIds", []),
            ("userIds", ""),
            ("userIds", "10001"),
            ("userIds[0]", [5]),
            ("userIds", ["10001"] * 101),
            ("userIds[0]", [""]),
            ("userIds[0]", [None]),
        ],
    )
    async def test_bad_fields(self, dial: Dialer, field: str, asked: object) -> None:
        """1 to 100 ids: else 4003."""
        await failed(await dial.user(), 4003, "presence", [], field, userIds=asked)

    async def test_a_hundred(self, dial: Dialer) -> None:
        """A hundred are allowed."""
        wire, friend = await users(dial, 2)
        await make_friends(wire, friend)
        found = await wire.ok("presence", userIds=[friend.user_id] * 100)
        assert {entry["userId"] for entry in found} == {friend.user_id}

    async def test_only_friends(self, dial: Dialer) -> None:
        """4004 for a stranger, 6004 for an unknown user, with the place in the list."""
        wire, friend, stranger = await users(dial, 3)
        await make_friends(wire, friend)
        for status, other in ((4004, stranger.user_id), (6004, "9007199254740991"), (6004, "x")):
            asked = [friend.user_id, other]
            await failed(wire, status, "presence", [], "userIds[1]", userIds=asked)


class TestLimits:
    """How many friends one may have, and how often one may ask."""

    async def test_friends(self, server: StartServer) -> None:
        """Beyond `limits.friends` on either side: 4006; the request stays."""
        own = server(limits_friends=2)
        a, b, c, d = await users(own.dial, 4)
        await make_friends(a, b, c)
        await d.ok("add_friend", userId=a.user_id)
        await failed(a, 4006, "accept_friend", {}, userId=d.user_id)
        await failed(a, 4006, "add_friend", {}, userId=d.user_id)
        assert await requests_of(a) == [d.user_id]
        await a.ok("delete_friend", userId=b.user_id)
        await a.ok("accept_friend", userId=d.user_id)
        await assert_friends(a, d)

    async def test_asking(self, server: StartServer) -> None:
        """`add_friend` has a budget per account; other commands are not touched."""
        own = server(limits_friend_requests=3)
        a, b, *others = await users(own.dial, 6)
        for other in others[:3]:
            await a.ok("add_friend", userId=other.user_id)
        assert await limited(a, "add_friend", {}, userId=b.user_id) <= 3600
        assert await requests_of(b) == []
        await a.ok("friends")
        await b.ok("add_friend", userId=a.user_id)
        await a.ok("accept_friend", userId=b.user_id)


@ONE_LOOP
@pytest.mark.slow
class TestRaces:
    """Two answers in one moment: one wins, the other is told, and both sides agree."""

    async def test_accept_twice(self, dial: Dialer) -> None:
        """Accepting on two connections: one friendship; 1 and 12000."""
        a, b = await users(dial, 2)
        again = await dial()
        await again.login(b.phone)
        line = {"cmd": "accept_friend", "userId": a.user_id}
        for _ in range(ROUNDS):
            await a.ok("add_friend", userId=b.user_id)
            replies = await at_once((b, line), (again, line))
            assert statuses(replies) in ([1, 1], [1, 12000])
            await one_friend(a, b)

    async def test_both_ask(self, dial: Dialer) -> None:
        """A adds B while B adds A: friends, without a request left."""
        a, b = await users(dial, 2)
        for _ in range(ROUNDS):
            replies = await at_once(
                (a, {"cmd": "add_friend", "userId": b.user_id}),
                (b, {"cmd": "add_friend", "userId": a.user_id}),
            )
            assert statuses(replies) == [1, 1]
            assert await requests_of(a) == await requests_of(b) == []
            await one_friend(a, b)

    async def test_accept_and_reject(self, dial: Dialer) -> None:
        """One of the two answers counts, the other gets its code."""
        a, b = await users(dial, 2)
        again = await dial()
        await again.login(b.phone)
        for number in range(ROUNDS):
            await a.ok("add_friend", userId=b.user_id)
            accept = (b, {"cmd": "accept_friend", "userId": a.user_id})
            reject = (again, {"cmd": "reject_friend", "userId": a.user_id})
            first, second = (accept, reject) if number % 2 else (reject, accept)
            replies = await at_once(first, second)
            accepted, rejected = replies if number % 2 else reversed(replies)
            assert (accepted["status"], rejected["status"]) in ((1, 4005), (4005, 1))
            assert await requests_of(b) == []
            if accepted["status"] == 1:
                await one_friend(a, b)

    async def test_accept_and_block(self, dial: Dialer) -> None:
        """The block always holds; the friendship if it came first."""
        a, b = await users(dial, 2)
        again = await dial()
        await again.login(b.phone)
        for number in range(ROUNDS):
            await a.ok("add_friend", userId=b.user_id)
            accept = (b, {"cmd": "accept_friend", "userId": a.user_id})
            block = (again, {"cmd": "block", "userId": a.user_id})
            replies = await at_once(*((accept, block) if number % 2 else (block, accept)))
            accepted, blocked = replies if number % 2 else reversed(replies)
            assert blocked["status"] == 1
            assert accepted["status"] in (1, 4004, 4005)
            await a.refused(4004, frame([text(b.user_id, "x")]))
            assert await requests_of(b) == []
            if accepted["status"] == 1:
                await one_friend(a, b)
            await b.ok("unblock", userId=a.user_id)

    async def test_delete_twice(self, dial: Dialer) -> None:
        """Both end it at once: it has ended; 1 and 4004."""
        a, b = await users(dial, 2)
        for _ in range(ROUNDS):
            await befriend(a, b)
            replies = await at_once(
                (a, {"cmd": "delete_friend", "userId": b.user_id}),
                (b, {"cmd": "delete_friend", "userId": a.user_id}),
            )
            assert statuses(replies) == [1, 4004]
            assert await friends_of(a) == await friends_of(b) == []


def statuses(replies: list[Frame]) -> list[int]:
    """Return the statuses in order of their size; the results must go with them."""
    for reply in replies:
        assert (reply["result"] == {}) == (reply["status"] != 1), reply
    return sorted(reply["status"] for reply in replies)


async def one_friend(a: Wire, b: Wire) -> None:
    """Require exactly one friendship on both sides, and end it."""
    assert await friends_of(a) == [b.user_id]
    assert await friends_of(b) == [a.user_id]
    assert (await a.ok("delete_friend", userId=b.user_id))["friends"] == 0
