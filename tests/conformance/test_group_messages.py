"""Sections 2 and 3, what is said in groups: to whom, in which order, and what is read of it."""

import asyncio
from typing import Any

import pytest

from .crowd import (
    KINDS,
    Place,
    another,
    asked,
    chat_of,
    founded,
    gathered,
    note,
    numbers,
    roles,
    silent,
    spread,
    started,
    talk,
    told,
    view,
)
from .people import ONE_LOOP, failed, make_friends, new_tag, users
from .process import StartServer
from .wire import (
    PASSWORD,
    Dialer,
    Frame,
    Wire,
    assert_refused,
    client_id,
    content,
    frame,
    lines,
    new_phone,
    text,
)

EACH_KIND = pytest.mark.parametrize("kind", KINDS)


@ONE_LOOP
class TestTypes:
    """Which type goes where, and who may send it."""

    @EACH_KIND
    async def test_of_the_kind(self, dial: Dialer, kind: str) -> None:
        """3 goes to a tag, 6 to a link, 7 to a group; the others get 4004 and nothing is sent."""
        group, (a, b, c) = await gathered(dial, 3, kind)
        for each in KINDS.values():
            if each == KINDS[kind]:
                await b.post(note(group, f"type {each}", each))
                await spread([a, c], f"type {each}")
                await b.post(note(group, "a number", type=int(each)))
                await spread([a, c], "a number")
            else:
                await assert_refused(b, 4004, note(group, "x", each), "message[0].type")
        await silent(a, b, c)

    @EACH_KIND
    async def test_announcements(self, dial: Dialer, kind: str) -> None:
        """4 goes to any kind, from its owner and admins alone."""
        group, (a, b, c) = await gathered(dial, 3, kind)
        await assert_refused(b, 4004, note(group, "x", "4"), "message[0].type")
        await a.ok("set_role", groupId=group, userId=b.user_id, role="admin")
        await told([a, b, c], group, "role", userId=b.user_id, role="admin", by=a.user_id)
        await b.post(note(group, "by an admin", "4"))
        await spread([a, c], "by an admin")
        await a.post(note(group, "by the owner", "4"))
        await spread([b, c], "by the owner")

    @EACH_KIND
    async def test_tasks(self, dial: Dialer, kind: str) -> None:
        """5 goes to any kind, from any member."""
        group, (a, b, c) = await gathered(dial, 3, kind)
        await b.post(note(group, "a task", "5"))
        [got] = [await spread([a, c], "a task")]
        assert got[0]["type"] == "5"

    async def test_pair_types(self, dial: Dialer) -> None:
        """1 and 2 go to people: a group's id in `chatId` does not matter, in `toId` it is nobody.

        Type 0 is the server's.
        """
        group, (a, b, c) = await gathered(dial, 3)
        await a.post(text(b.user_id, "for you", chatId=group))
        await spread([b], "for you")
        await silent(c)
        for kind in ("1", "2"):
            message = note(group, "x", kind, toId=group)
            await assert_refused(a, 6004, message, "message[0].toId")
        await assert_refused(a, 4004, note(group, "x", "0"), "message[0].type")
        await silent(b, c)


@ONE_LOOP
class TestTarget:
    """`chatId` or `toId` names the group."""

    async def test_either(self, dial: Dialer) -> None:
        """`chatId` if it is a group of the sender's, else `toId` if that is one."""
        group, (a, b) = await gathered(dial, 2)
        other, (c, _) = await founded(dial, 2)
        own = "10001-10002"
        for chat, to in (
            (group, ""),
            ("", group),
            (group, group),
            (own, group),
            (group, b.user_id),
            (group, "99999999"),
            (other, group),
            (group, other),
            ("x" * 64, group),
        ):
            [row] = await a.post(note(group, "hi", chatId=chat, toId=to))
            assert row["chatId"] == group
            [got] = await b.expect_delivery(ack=True)
            assert (got["chatId"], got["toId"], got["fromId"]) == (group, group, a.user_id)
        assert await talk(c, other) == ["joined"]

    async def test_chat_first(self, dial: Dialer) -> None:
        """Of two groups of the sender's `chatId` counts."""
        a, b = await dial.pair()
        made = []
        for name in "xy":
            fields = {"name": name, "kind": "group", "userIds": [b.user_id]}
            made.append((await a.ok("create_group", **fields))["id"])
        [row] = await a.post(note(made[0], "hi", "7", toId=made[1]))
        assert row["chatId"] == made[0]

    async def test_task_for_a_person(self, dial: Dialer) -> None:
        """5 goes to the user `toId` where no group of the sender's is named."""
        group, (a, b, c) = await gathered(dial, 3)
        other, _ = await founded(dial, 1)
        for chat in ("", other, "g99999999"):
            [row] = await a.post(note(group, "do it", "5", chatId=chat, toId=b.user_id))
            assert row["chatId"] == f"{a.user_id}-{b.user_id}"
            [got] = await b.expect_delivery(ack=True)
            assert (got["type"], got["toId"]) == ("5", b.user_id)
        await a.post(note(group, "all", "5", toId=b.user_id))
        await spread([b, c], "all")
        # Friendship is asked for where it goes to a person.
        assert (await b.send([note("", "x", "5", toId=c.user_id)]))["status"] == 4004

    async def test_no_group(self, dial: Dialer) -> None:
        """Neither names a group of the sender's: 4005, whether it exists or not."""
        _, (a, b) = await gathered(dial, 2)
        other, (c, _) = await founded(dial, 2)
        for kind in ("3", "4", "6", "7"):
            texts = []
            for place in (other, "g99999999", "", b.user_id, f"{a.user_id}-{b.user_id}", "system"):
                reply = await assert_refused(a, 4005, note(place, "x", kind))
                texts.append((reply["field"], reply["message"]))
                reply = await assert_refused(a, 4005, note("", "x", kind, toId=place))
                texts.append((reply["field"], reply["message"]))
            # Nobody learns from it which groups there are.
            assert texts[0] == texts[2]
        reply = await assert_refused(a, 4005, note(other, "x", "5"))
        assert await talk(c, other) == ["joined"]

    async def test_sender(self, dial: Dialer) -> None:
        """`fromId` is empty or one's own."""
        group, (a, b) = await gathered(dial, 2)
        await a.post(note(group, "hi", fromId=a.user_id))
        await spread([b], "hi")
        message = note(group, "x", fromId=b.user_id)
        await assert_refused(a, 4004, message, "message[0].fromId")


class TestRecipients:
    """Who gets what is said, and how it looks."""

    @EACH_KIND
    async def test_all_but_the_sender(self, dial: Dialer, kind: str) -> None:
        """Every device of every member gets it, also one without a device, later."""
        group, (a, b, c) = await gathered(dial, 3, kind)
        d = await dial.user()
        if kind == "group":
            await make_friends(a, d)
            await a.expect_delivery(ack=True)
            await a.ok("invite", groupId=group, userIds=[d.user_id])
        else:
            named = {"code": group.code} if kind == "link" else {"groupId": group}
            await d.ok("join_group", **named)
        for each in (a, b, c):
            await each.expect_delivery(ack=True)
        b2 = await another(dial, b)
        [row] = await a.post(note(group, "hi"))
        got = [(await each.expect_delivery())[0] for each in (b, b2, c)]
        for message in got:
            assert message["msgId"] == row["msgId"]
            assert message["chatId"] == row["chatId"] == group
            assert message["createTime"] == row["createTime"]
            assert (message["fromId"], message["toId"]) == (a.user_id, group)
            assert message["type"] == KINDS[kind]
            assert "clientId" not in message
        await silent(a)
        reply = await d.start()
        assert content((await d.expect_delivery(reply["queued"]))[-1]) == "hi"

    async def test_copies(self, dial: Dialer) -> None:
        """The sender's other devices get a copy, with its clientId; members get none of that."""
        group, (a, b) = await gathered(dial, 2)
        a2 = await another(dial, a)
        one = client_id()
        [row] = await a.post(note(group, "hi", clientId=one))
        [copy] = await a2.expect_delivery()
        assert (copy["msgId"], copy["clientId"], copy["chatId"]) == (row["msgId"], one, group)
        assert "clientId" not in (await spread([b], "hi"))[0]
        await silent(a)
        [mine] = await a.ok("history", chatId=group, limit=1)
        [theirs] = await b.ok("history", chatId=group, limit=1)
        assert mine["clientId"] == one
        assert "clientId" not in theirs

    async def test_without_a_device(self, dial: Dialer) -> None:
        """A session without a device may write; all devices of its account get the copy."""
        group, (a, b) = await gathered(dial, 2)
        bare = await dial()
        await bare.login(a.phone)
        await bare.post(note(group, "hi"))
        await spread([a, b], "hi")

    @ONE_LOOP
    async def test_mentions_and_replies(self, dial: Dialer) -> None:
        """`mentions` and `replyTo` come as they were sent; `replyTo` is of this group (4005)."""
        group, (a, b, c) = await gathered(dial, 3)
        [first] = await a.post(note(group, "first"))
        await spread([b, c], "first")
        mentioned = [c.user_id, a.user_id, c.user_id]
        await b.post(note(group, "second", replyTo=first["msgId"], mentions=mentioned))
        for each in (a, c):
            [got] = await each.expect_delivery(ack=True)
            assert got["replyTo"] == first["msgId"]
            assert got["mentions"] == mentioned[:2]
        pair = await a.say(b.user_id, "elsewhere")
        other, (d, _) = await founded(dial, 2)
        [foreign] = await d.post(note(other, "foreign"))
        for place in (pair["msgId"], foreign["msgId"], "9007199254740991", "x", "-1"):
            await assert_refused(a, 4005, note(group, "x", replyTo=place), "message[0].replyTo")
        message = note(group, "x", mentions=[b.user_id, "99999999"])
        await assert_refused(a, 6004, message, "message[0].mentions")
        message = note(group, "x", mentions=[b.user_id] * 101)
        await assert_refused(a, 4003, message, "message[0].mentions")

    @ONE_LOOP
    async def test_lists(self, dial: Dialer) -> None:
        """A frame holds messages for many places; one bad one and none is accepted."""
        group, (a, b, c) = await gathered(dial, 3)
        rows = await a.post(note(group, "1"), text(b.user_id, "2"), note("", "3", "5", toId=group))
        assert [row["chatId"] for row in rows] == [group, f"{a.user_id}-{b.user_id}", group]
        await spread([b], "1", "2", "3")
        await spread([c], "1", "3")
        reply = await a.send([note(group, "x"), note(group, "x", "3"), note("g9", "x")])
        assert reply["status"] == 4004
        assert [row["index"] for row in reply["failed"]] == [1, 2]
        assert [row["status"] for row in reply["failed"]] == [4004, 4005]
        await silent(b, c)

    @ONE_LOOP
    async def test_expire(self, dial: Dialer) -> None:
        """`expire` comes with the message, which is shown until then."""
        group, (a, b) = await gathered(dial, 2)
        await a.post(note(group, "long", expire=3600))
        [got] = await spread([b], "long")
        assert got["expire"] == 3600
        assert (await talk(b, group))[-1] == "long"

    async def test_typing(self, dial: Dialer) -> None:
        """`typing` in a group is told to its members who accept it, and is only for members."""
        group, (a, b, c) = await founded(dial, 3)
        await started(a, b, accept=["typing"])
        await started(c)
        await a.ok("typing", chatId=group)
        event = (await b.recv())["event"]
        assert event == {"name": "typing", "userId": a.user_id, "chatId": group}
        await silent(a, c)
        for place in (group, "g99999999"):
            d = await dial.user()
            await failed(d, 4005, "typing", {}, None, chatId=place)
        await a.ok("kick", groupId=group, userIds=[b.user_id])
        await failed(b, 4005, "typing", {}, None, chatId=group)
        await b.expect_delivery(ack=True)
        await a.ok("typing", chatId=group)
        await silent(b)


class TestClientIds:
    """One clientId, one message, in groups too."""

    async def test_repeats(self, dial: Dialer) -> None:
        """Confirmed again with the same msgId, delivered once; from any device and in one list."""
        group, (a, b) = await gathered(dial, 2)
        message = note(group, "once", clientId=client_id())
        rows = await a.post(message, message)
        rows += await a.post(message)
        rows += await a.post({**message, "chatId": "", "toId": group})
        a2 = await another(dial, a)
        rows += await a2.post(message)
        assert len({row["msgId"] for row in rows}) == 1
        assert {row["chatId"] for row in rows} == {group}
        await spread([b], "once")
        await silent(b)
        assert (await talk(b, group)).count("once") == 1

    @ONE_LOOP
    async def test_other_content(self, dial: Dialer) -> None:
        """With another text, type, group or reference: 4003."""
        group, (a, b) = await gathered(dial, 2)
        fields = {"name": "o", "kind": "group", "userIds": [b.user_id]}
        other = (await a.ok("create_group", **fields))["id"]
        one = client_id()
        await a.post(note(group, "once", clientId=one))
        for changed in (
            note(group, "other", clientId=one),
            note(group, "once", "5", clientId=one),
            note(other, "once", "7", clientId=one),
            note(group, "once", clientId=one, mentions=[b.user_id]),
            note(group, "once", clientId=one, expire=60),
            text(b.user_id, "once", clientId=one),
        ):
            await assert_refused(a, 4003, changed, "message[0].clientId")
        # Another's clientIds are their own.
        await b.post(note(group, "mine", clientId=one))

    @ONE_LOOP
    async def test_when_rights_have_gone(self, dial: Dialer) -> None:
        """A repeat is confirmed also after a mute, a kick and the end of the group."""
        group, (a, b, c) = await founded(dial, 3)
        one = client_id()
        message = note(group, "once", clientId=one)
        [row] = await b.post(message)
        await a.ok("mute", groupId=group, userId=b.user_id, seconds=600)
        assert await b.post(message) == [row]
        await a.ok("kick", groupId=group, userIds=[b.user_id])
        assert await b.post(message) == [row]
        await assert_refused(b, 4003, {**message, "type": "5"}, "message[0].clientId")
        await assert_refused(b, 4005, {**message, "clientId": client_id()})
        assert (await talk(c, group)).count("once") == 1

    @ONE_LOOP
    async def test_when_the_group_has_gone(self, dial: Dialer) -> None:
        """A repeat is confirmed also after the group was dissolved."""
        group, (a, b) = await founded(dial, 2)
        message = note(group, "once", clientId=client_id())
        [row] = await b.post(message)
        await a.ok("dissolve_group", groupId=group)
        assert await b.post(message) == [row]
        await assert_refused(b, 4005, {**message, "clientId": client_id()})


class TestHistory:
    """What one reads back of a group: from joining to leaving."""

    @EACH_KIND
    async def test_bounds(self, dial: Dialer, kind: str) -> None:
        """It begins where the member joined, and ends where they left; in every way to read."""
        group, (a, _) = await founded(dial, 2, kind)
        word = new_tag()
        c = await dial.user()
        await make_friends(a, c)
        [before] = await a.post(note(group, f"{word} before"))
        await a.ok("invite", groupId=group, userIds=[c.user_id])
        [within] = await a.post(note(group, f"{word} within"))
        await c.ok("leave_group", groupId=group)
        [after] = await a.post(note(group, f"{word} after"))
        expected = ["joined", f"{word} within", "left"]
        assert await talk(c, group) == expected
        assert await talk(c, group, after="0") == expected
        assert await talk(c, group, after=before["msgId"]) == expected
        assert await talk(c, group, before=after["msgId"]) == expected
        assert await talk(c, group, after=within["msgId"]) == ["left"]
        assert await talk(c, group, before=within["msgId"]) == ["joined"]
        assert await talk(c, group, after=after["msgId"]) == []
        found = [content(each) for each in await c.ok("search_messages", text=word)]
        assert found == [f"{word} within"]
        assert len(await a.ok("search_messages", text=word, chatId=group)) == 3
        assert (await chat_of(c, group))["last"]["event"]["name"] == "left"
        for row in (before, after):
            for cmd in ("recall", "status"):
                await failed(c, 4005, cmd, {}, "msgId", msgId=row["msgId"])
        await failed(c, 4004, "status", {}, "msgId", msgId=within["msgId"])

    @ONE_LOOP
    async def test_pages(self, dial: Dialer) -> None:
        """By `next` each message once, though more are said meanwhile (one `createTime`)."""
        group, (a, b) = await founded(dial, 2)
        rows = await a.post(*(note(group, f"{n}") for n in range(45)))
        seen: list[str] = []
        reply = await b.command("history", chatId=group, limit=10)
        while True:
            seen = [each["msgId"] for each in reply["result"]] + seen
            await a.post(*(note(group, "new") for _ in range(3)))
            if "next" not in reply:
                break
            reply = await b.command("history", chatId=group, limit=10, before=reply["next"])
        assert seen[-45:] == [row["msgId"] for row in rows]
        assert len(seen) == len(set(seen)) == 46

    @ONE_LOOP
    async def test_outsiders(self, dial: Dialer) -> None:
        """Who was never in: 4005 or nothing in every place that shows messages."""
        group, (a, _) = await founded(dial, 2, "tag")
        word = new_tag()
        [row] = await a.post(note(group, word))
        d = await dial.user()
        await failed(d, 4005, "history", [], "chatId", chatId=group)
        assert await d.ok("search_messages", text=word) == []
        reply = await d.command("search_messages", text=word, chatId=group)
        assert reply["result"] == []
        for cmd in ("recall", "status"):
            await failed(d, 4005, cmd, {}, "msgId", msgId=row["msgId"])
        await d.read_mark(chatId=group)
        assert (await d.reply())["status"] == 4005
        assert await d.ok("chats") == []

    @ONE_LOOP
    async def test_two_stays(self, dial: Dialer) -> None:
        """Who comes back reads from the last time they joined."""
        group, (a, _) = await founded(dial, 2, "tag")
        c = await dial.user()
        await c.ok("join_group", groupId=group)
        await a.post(note(group, "first stay"))
        await c.ok("leave_group", groupId=group)
        await a.post(note(group, "away"))
        await c.ok("join_group", groupId=group)
        await a.post(note(group, "second stay"))
        assert await talk(c, group) == ["joined", "second stay"]


@ONE_LOOP
class TestReading:
    """Unread counts and read marks."""

    async def test_unread(self, dial: Dialer) -> None:
        """What others said above the mark counts, one's own never."""
        group, (a, b, c) = await founded(dial, 3)
        await b.read_mark(chatId=group, msgId="9007199254740991")
        await b.fence()
        assert (await chat_of(b, group))["unread"] == 0
        await a.post(note(group, "1"), note(group, "2"))
        await b.post(note(group, "3"), note(group, "4"))
        await c.post(note(group, "5"))
        assert (await chat_of(b, group))["unread"] == 3
        assert (await chat_of(c, group))["unread"] == 5

    async def test_mark(self, dial: Dialer) -> None:
        """The mark moves to `msgId`, never back, and only within what one may read."""
        group, (a, b) = await founded(dial, 2)
        rows = await a.post(*(note(group, f"{n}") for n in range(4)))
        for place, unread in ((rows[1], 2), (rows[0], 2), (rows[3], 0), (rows[1], 0)):
            await b.read_mark(chatId=group, msgId=place["msgId"])
            await b.fence()
            entry = await chat_of(b, group)
            assert entry["unread"] == unread
        assert entry["read"] == rows[3]["msgId"]
        await a.ok("kick", groupId=group, userIds=[b.user_id])
        [late] = await a.post(note(group, "late"))
        await b.read_mark(chatId=group, msgId=late["msgId"])
        await b.fence()
        entry = await chat_of(b, group)
        assert int(entry["read"]) < int(late["msgId"])
        assert entry["unread"] == 0

    async def test_mark_by_what_was_acked(self, dial: Dialer) -> None:
        """Without `msgId` it moves to the newest of the group that this device has acked."""
        group, (a, b) = await gathered(dial, 2)
        [first] = await a.post(note(group, "1"))
        await spread([b], "1")
        await a.post(note(group, "2"))
        await b.expect_delivery()
        await b.read_mark(chatId=group)
        await b.fence()
        entry = await chat_of(b, group)
        assert (entry["read"], entry["unread"]) == (first["msgId"], 1)

    async def test_who_is_told(self, dial: Dialer) -> None:
        """A read mark in a group goes to the reader's own devices and to nobody else."""
        group, (a, b) = await founded(dial, 2)
        await started(a, b, accept=["ack"])
        b2 = await another(dial, b, accept=["ack"])
        [row] = await a.post(note(group, "hi"))
        for each in (b, b2):
            await each.expect_delivery(ack=True)
        await b.read_mark(chatId=group, msgId=row["msgId"])
        await b.fence()
        told_ = (await b2.recv())["message"]
        assert told_["fromId"] == b.user_id
        assert (told_["chatId"], told_["msgId"]) == (group, row["msgId"])
        await silent(a, b, b2)

    async def test_joining_marks_what_was_before(self, dial: Dialer) -> None:
        """Whoever joins has nothing unread from before, and nobody thinks that they read it."""
        group, (a, b) = await founded(dial, 2, "tag")
        rows = await a.post(*(note(group, f"{n}") for n in range(3)))
        c = await dial.user()
        await c.ok("join_group", groupId=group)
        assert (await chat_of(c, group))["unread"] == 1  # that they joined
        found = await a.ok("status", msgId=rows[-1]["msgId"])
        assert found["read"] == 0
        await b.read_mark(chatId=group, msgId=rows[-1]["msgId"])
        await b.fence()
        assert (await a.ok("status", msgId=rows[-1]["msgId"]))["read"] == 1

    async def test_status(self, dial: Dialer) -> None:
        """`status` counts the devices of who was in, and of those who have acked."""
        group, (a, b, c) = await gathered(dial, 3)
        [row] = await a.post(note(group, "hi"))
        await spread([b], "hi")
        await b.fence()
        found = await a.ok("status", msgId=row["msgId"])
        assert (found["devices"], found["delivered"], found["read"]) == (2, 1, 0)
        await c.expect_delivery(ack=True)
        await c.read_mark(chatId=group)
        await c.fence()
        await a.ok("kick", groupId=group, userIds=[b.user_id])
        found = await a.ok("status", msgId=row["msgId"])
        assert (found["devices"], found["delivered"], found["read"]) == (2, 2, 1)


class TestRecall:
    """A message is taken back, and everybody is told in order."""

    @EACH_KIND
    async def test_own(self, dial: Dialer, kind: str) -> None:
        """A stub in history, and an event for all, in the group's order."""
        group, (a, b, c) = await gathered(dial, 3, kind)
        [row] = await b.post(note(group, "oops"))
        await spread([a, c], "oops")
        await b.ok("recall", msgId=row["msgId"])
        await a.post(note(group, "next"))
        for each in (b, c):
            got = await each.expect_delivery(2)
            event = {"name": "recalled", "chatId": group, "msgId": row["msgId"], "by": b.user_id}
            assert got[0]["event"] == event
            assert (got[0]["type"], got[0]["fromId"], got[0]["chatId"]) == ("0", "", group)
            assert content(got[1]) == "next"
            assert content(got[0])
        [stub] = [
            each
            for each in await c.ok("history", chatId=group, limit=10)
            if each["msgId"] == row["msgId"]
        ]
        assert stub["recalled"] is True
        assert content(stub) == ""
        assert (stub["fromId"], stub["type"]) == (b.user_id, KINDS[kind])

    @ONE_LOOP
    async def test_leaders(self, dial: Dialer) -> None:
        """Owner and admins recall anybody's; a member only their own (4004)."""
        group, (a, b, c) = await founded(dial, 3)
        await a.ok("set_role", groupId=group, userId=b.user_id, role="admin")
        rows = {each: (await each.post(note(group, "x")))[0]["msgId"] for each in (a, b, c)}
        for row in (rows[a], rows[b]):
            await failed(c, 4004, "recall", {}, "msgId", msgId=row)
        await b.ok("recall", msgId=rows[a])
        await a.ok("recall", msgId=rows[b])
        await b.ok("recall", msgId=rows[c])
        await a.ok("recall", msgId=rows[c])
        found = await c.ok("history", chatId=group, limit=100)
        assert sum("recalled" in each for each in found) == 3
        # A second recall tells nobody anything.
        assert [each["event"]["by"] for each in found if "msgId" in each.get("event", {})] == [
            b.user_id,
            a.user_id,
            b.user_id,
        ]
        [notice] = [each for each in found if each.get("event", {}).get("name") == "joined"]
        await failed(a, 4004, "recall", {}, "msgId", msgId=notice["msgId"])

    async def test_any_time(self, server: StartServer) -> None:
        """The window is for members; owner and admins recall at any time."""
        dial = server(limits_recall=0).dial
        group, (a, b) = await founded(dial, 2)
        [row] = await b.post(note(group, "old"))
        while (await b.command("recall", msgId=row["msgId"]))["status"] == 1:
            [row] = await b.post(note(group, "old"))
        await a.ok("recall", msgId=row["msgId"])
        [own] = await a.post(note(group, "mine"))
        await a.ok("recall", msgId=own["msgId"])

    @ONE_LOOP
    async def test_after_losing_the_role(self, dial: Dialer) -> None:
        """Who was admin, or has left, recalls nobody's message any more."""
        group, (a, b, c) = await founded(dial, 3)
        [row] = await a.post(note(group, "x"))
        for each in (b, c):
            await a.ok("set_role", groupId=group, userId=each.user_id, role="admin")
        await a.ok("set_role", groupId=group, userId=b.user_id, role="member")
        await c.ok("leave_group", groupId=group)
        for each in (b, c):
            await failed(each, 4004, "recall", {}, "msgId", msgId=row["msgId"])

    async def test_to_who_was_away(self, dial: Dialer) -> None:
        """A device that was off gets the stub with its seq, and then the event; never the text."""
        group, (a, b) = await gathered(dial, 2)
        b.close()
        rows = await a.post(note(group, "one"), note(group, "secret"), note(group, "three"))
        await a.ok("recall", msgId=rows[1]["msgId"])
        back, reply = await dial.resume(b.push_id)
        assert reply["queued"] == 4
        got = await back.expect_delivery(4)
        assert [each["seq"] for each in got] == list(range(got[0]["seq"], got[0]["seq"] + 4))
        assert [content(each) for each in got[:3]] == ["one", "", "three"]
        assert (got[1]["msgId"], got[1]["recalled"]) == (rows[1]["msgId"], True)
        assert got[3]["event"]["name"] == "recalled"
        assert "secret" not in str(got)
        assert await back.ok("search_messages", text="secret") == []

    @ONE_LOOP
    async def test_who_was_kicked(self, dial: Dialer) -> None:
        """Who is out gets no event, but the stub where it was not delivered."""
        group, (a, b) = await gathered(dial, 2)
        b.close()
        [row] = await a.post(note(group, "secret"))
        await a.ok("kick", groupId=group, userIds=[b.user_id])
        await a.ok("recall", msgId=row["msgId"])
        back, reply = await dial.resume(b.push_id)
        got = await back.expect_delivery(reply["queued"])
        assert [each["event"]["name"] for each in got if "event" in each] == ["kicked"]
        assert [each.get("recalled") for each in got] == [True, None]

    @ONE_LOOP
    async def test_who_is_out(self, dial: Dialer) -> None:
        """Who left or was kicked recalls nothing any more, their own neither: 4004."""
        group, (a, b, c) = await founded(dial, 3)
        rows = {each: (await each.post(note(group, each.user_id)))[0]["msgId"] for each in (b, c)}
        await b.ok("leave_group", groupId=group)
        await a.ok("kick", groupId=group, userIds=[c.user_id])
        for each, row in rows.items():
            await failed(each, 4004, "recall", {}, "msgId", msgId=row)
        said = [b.user_id, c.user_id, "left", "kicked"]
        assert (await talk(a, group))[-4:] == said
        # Who comes back is in again, but reads nothing of the time before.
        await a.ok("invite", groupId=group, userIds=[b.user_id])
        await failed(b, 4005, "recall", {}, "msgId", msgId=rows[b])

    @ONE_LOOP
    async def test_in_a_group_that_ended(self, dial: Dialer) -> None:
        """All are out of a group that was dissolved: 4004, for its owner too."""
        group, (a, b) = await founded(dial, 2)
        rows = {each: (await each.post(note(group, "x")))[0]["msgId"] for each in (a, b)}
        await a.ok("recall", msgId=rows[a])
        await a.ok("dissolve_group", groupId=group)
        for each, row in rows.items():
            await failed(each, 4004, "recall", {}, "msgId", msgId=row)
        assert (await talk(b, group))[-4:] == ["", "x", "recalled", "dissolved"]


class TestOrder:
    """Many speak at once: all hear it in one order."""

    @pytest.mark.slow
    async def test_fifty_speakers(self, dial: Dialer) -> None:
        """One order for all, seqs without holes, each sender's own order, nothing twice."""
        group, (a, b) = await gathered(dial, 2, "tag")
        speakers = []
        for _ in range(10):
            speaker = await dial.user()
            await speaker.ok("join_group", groupId=group)
            speakers.append(speaker)
            for _ in range(4):
                again = await dial()
                await again.login(speaker.phone)
                speakers.append(again)
        for each in (a, b):
            await each.take(10)
        rounds = 4
        for number in range(rounds):
            data = [
                lines(
                    frame([note(group, f"{index}.{number}.0"), note(group, f"{index}.{number}.1")])
                )
                for index in range(len(speakers))
            ]
            await asyncio.gather(
                *(wire.send_raw(each) for wire, each in zip(speakers, data, strict=True))
            )
        count = rounds * 2 * len(speakers)
        heard = await asyncio.gather(a.take(count), b.take(count))
        for each in speakers:
            for _ in range(rounds):
                assert (await each.reply())["status"] == 1
        for got in heard:
            first = got[0]["seq"]
            assert [each["seq"] for each in got] == list(range(first, first + count))
            assert numbers(got) == sorted(set(numbers(got)))
        assert numbers(heard[0]) == numbers(heard[1])
        assert [content(each) for each in heard[0]] == [content(each) for each in heard[1]]
        for index in range(len(speakers)):
            own = [content(each) for each in heard[0] if content(each).startswith(f"{index}.")]
            expected = [f"{index}.{number}.{half}" for number in range(rounds) for half in (0, 1)]
            assert own == expected

    @pytest.mark.slow
    async def test_replay_meets_live(self, dial: Dialer) -> None:
        """A device that comes back while others speak gets all once and in order."""
        group, (a, b, c) = await gathered(dial, 3)
        b.close()
        for start in range(0, 400, 100):
            await a.post(*(note(group, f"{n}") for n in range(start, start + 100)))
        push_id, got = b.push_id, []
        for number in range(6):
            await c.send_line(frame([note(group, f"live {number}.{n}") for n in range(10)]))
            back, _ = await dial.resume(push_id)
            while len(got) < 75 * (number + 1):
                got += (await back.packet())["message"]
                await back.ack()
            await back.fence()
            back.close()
            assert (await c.reply())["status"] == 1
        back, reply = await dial.resume(push_id)
        got += await back.take(reply["queued"]) if reply["queued"] else []
        unique = {each["msgId"]: each for each in got}
        assert len(unique) == 460
        assert numbers(list(unique.values())) == sorted(numbers(list(unique.values())))
        first = got[0]["seq"]
        assert [each["seq"] for each in unique.values()] == list(range(first, first + 460))


class TestLargeGroup:
    """Three hundred people, five of them online."""

    async def test_three_hundred(self, server: StartServer) -> None:
        """Sending, listing and reading work as in a small one; 4006 when it is full."""
        dial = server(limits_group_members=300).dial
        owner, *online = people = await users(dial, 6)
        await make_friends(owner, *online)
        members = await strangers(dial, owner, 294)
        ids = [*(each.user_id for each in online), *members]
        made = await owner.ok("create_group", name="Town", kind="group", userIds=ids[:299])
        assert made["members"] == 300
        group = Place.of(made)
        late = await dial.user()
        await make_friends(owner, late)
        await failed(owner, 4006, "invite", {}, None, groupId=group, userIds=[late.user_id])
        await late.ok("join_group", groupId=group)
        await failed(owner, 4006, "accept_join", {}, None, groupId=group, userId=late.user_id)
        assert await asked(owner, group) == [late.user_id]
        await started(*people[:5])
        for number in range(5):
            await people[number].post(*(note(group, f"{number}.{n}") for n in range(4)))
        for number, each in enumerate(people[:5]):
            got = await each.take(16)
            expected = [f"{m}.{n}" for m in range(5) if m != number for n in range(4)]
            assert [content(message) for message in got] == expected
        listed = await roles(owner, group)
        assert len(listed) == 300
        assert (await view(owner, group))["members"] == 300
        # One who was away all the time finds what waits.
        phone = members[ids[5]]
        away = await dial()
        await away.login(phone)
        reply = await away.start()
        waiting = await away.expect_delivery(reply["queued"])
        assert [content(each) for each in waiting[-20:]] == [
            f"{m}.{n}" for m in range(5) for n in range(4)
        ]
        await owner.ok("kick", groupId=group, userIds=list(members)[:150])
        assert (await view(owner, group))["members"] == 150


async def strangers(dial: Dialer, owner: Wire, count: int) -> dict[str, str]:
    """Register friends of the owner, many to a packet; return their phones by id."""
    wire = await dial()
    phones = [new_phone() for _ in range(count)]
    ask = {"cmd": "add_friend", "userId": owner.user_id}
    found: dict[str, str] = {}
    for start in range(0, count, 50):
        requests: list[Any] = []
        for phone in phones[start : start + 50]:
            requests += [{"cmd": "register", "phone": phone, "password": PASSWORD}, ask]
            requests += [{"cmd": "logout"}]
        replies = await many(wire, requests)
        for reply, phone in zip(replies[::3], phones[start : start + 50], strict=True):
            found[reply["result"]["user"]["id"]] = phone
    await many(owner, [{"cmd": "accept_friend", "userId": user} for user in found])
    return found


async def many(wire: Wire, requests: list[Any]) -> list[Frame]:
    """Send requests in one go, all of which must succeed; return the replies."""
    await wire.send_raw(lines(*requests))
    replies = [await wire.reply() for _ in requests]
    assert {reply["status"] for reply in replies} == {1}, replies
    return replies
