"""Section 2.1, `clientId`: a retry is safe, and one id stands for one content."""

import asyncio

from .crowd import founded
from .wire import (
    Dialer,
    Frame,
    assert_refused,
    befriend,
    client_id,
    content,
    frame,
    pair_chat,
    text,
)


class TestClientId:
    """The same `clientId` is confirmed again with the same msgId, and delivered once."""

    async def test_repeated(self, dial: Dialer) -> None:
        """A retry is confirmed with the same row and not delivered again."""
        a, b = await dial.pair()
        mine = client_id()
        rows = [await a.say(b.user_id, "x", clientId=mine) for _ in range(3)]
        assert rows[0] == rows[1] == rows[2]
        [got] = await b.expect_delivery(ack=True)
        assert got["msgId"] == rows[0]["msgId"]
        await b.expect_nothing()
        shown = await a.ok("history", userId=b.user_id)
        assert [content(each) for each in shown].count("x") == 1

    async def test_twice_within_one_list(self, dial: Dialer) -> None:
        """Twice within one list it is one message with two equal rows."""
        a, b = await dial.pair()
        one, other = client_id(), client_id()
        rows = await a.post(
            text(b.user_id, "x", clientId=one),
            text(b.user_id, "y", clientId=other),
            text(b.user_id, "x", clientId=one),
        )
        assert rows[0] == rows[2]
        assert rows[0]["msgId"] != rows[1]["msgId"]
        got = await b.take(2)
        assert [content(each) for each in got] == ["x", "y"]
        await b.expect_nothing()

    async def test_old_and_new_in_one_list(self, dial: Dialer) -> None:
        """Of a list with two old ids only the new ones are delivered; all are confirmed."""
        a, b = await dial.pair()
        ids = [client_id() for _ in range(5)]
        old = {n: await a.say(b.user_id, f"{n}", clientId=ids[n]) for n in (1, 3)}
        await b.take(2)
        rows = await a.post(*(text(b.user_id, f"{n}", clientId=ids[n]) for n in range(5)))
        assert rows[1] == old[1]
        assert rows[3] == old[3]
        assert len({row["msgId"] for row in rows}) == 5
        got = await b.take(3)
        assert [content(each) for each in got] == ["0", "2", "4"]
        await b.expect_nothing()

    async def test_on_another_connection(self, dial: Dialer) -> None:
        """It holds over a lost connection and over all devices of the account."""
        a, b = await dial.pair()
        second = await dial.device(a)
        mine = client_id()
        row = await a.say(b.user_id, "x", clientId=mine)
        a.abort()
        again, _ = await dial.resume(a.push_id)
        assert await again.say(b.user_id, "x", clientId=mine) == row
        [copy] = await second.expect_delivery(ack=True)
        assert copy["msgId"] == row["msgId"]
        assert await second.say(b.user_id, "x", clientId=mine) == row
        await b.expect_delivery(ack=True)
        await b.expect_nothing()
        await again.expect_nothing()

    async def test_on_two_devices_at_once(self, dial: Dialer) -> None:
        """Two devices that send the same at the same time: one message, one msgId."""
        a, b = await dial.pair()
        second = await dial.device(a)
        for n in range(10):
            mine = client_id()
            one, other = await asyncio.gather(
                a.say(b.user_id, f"{n}", clientId=mine),
                second.say(b.user_id, f"{n}", clientId=mine),
            )
            assert one["msgId"] == other["msgId"]
        got = await b.take(10)
        assert [content(each) for each in got] == [f"{n}" for n in range(10)]
        await b.expect_nothing()

    async def test_conflicts_at_once(self, dial: Dialer) -> None:
        """Two devices that use one id for different texts: one is accepted, one refused."""
        a, b = await dial.pair()
        second = await dial.device(a)
        for n in range(10):
            mine = client_id()
            replies = await asyncio.gather(
                a.send([text(b.user_id, f"a{n}", clientId=mine)]),
                second.send([text(b.user_id, f"b{n}", clientId=mine)]),
            )
            assert sorted(each["status"] for each in replies) == [1, 4003]
            await second.fence()  # ten refusals in a row would close it
            await a.fence()
        await b.take(10)
        await b.expect_nothing()

    async def test_of_another_account(self, dial: Dialer) -> None:
        """Each account has its own ids."""
        a, b = await dial.pair()
        c = await dial.user()
        await befriend(c, b)
        mine = client_id()
        one = await a.say(b.user_id, "from a", clientId=mine)
        other = await c.say(b.user_id, "from c", clientId=mine)
        assert one["msgId"] != other["msgId"]
        got = await b.take(2)
        assert [content(each) for each in got] == ["from a", "from c"]

    async def test_when_rights_have_changed(self, dial: Dialer) -> None:
        """A retry is confirmed also when the sender may not write there any more."""
        a, b = await dial.pair()
        mine = client_id()
        row = await a.say(b.user_id, "x", clientId=mine)
        await b.expect_delivery(ack=True)
        await b.ok("block", userId=a.user_id)
        assert await a.say(b.user_id, "x", clientId=mine) == row
        await b.ok("delete_friend", userId=a.user_id)
        assert await a.say(b.user_id, "x", clientId=mine) == row
        await assert_refused(a, 4004, text(b.user_id, "x", clientId=client_id()))
        await b.expect_nothing()

    async def test_when_groups_have_changed(self, dial: Dialer) -> None:
        """A retry means the chat that it went to, whatever its names would mean by now."""
        left, (a, b) = await founded(dial, 2)
        [other, joined] = [
            (await a.ok("create_group", name="x", kind="group", userIds=[b.user_id]))["id"],
            (await b.ok("create_group", name="x", kind="group"))["id"],
        ]
        named = {"chatId": left, "type": "5", "clientId": client_id()}
        lines = [
            text(other, "to a group, and another", **named),
            text(b.user_id, "to a group, and a friend", **{**named, "clientId": client_id()}),
            text(b.user_id, "to a friend", **{**named, "clientId": client_id(), "chatId": joined}),
        ]
        rows = await a.post(*lines)
        assert [row["chatId"] for row in rows] == [left, left, pair_chat(a, b)]
        await b.ok("invite", groupId=joined, userIds=[a.user_id])
        await a.ok("set_role", groupId=left, userId=b.user_id, role="owner")
        await a.ok("leave_group", groupId=left)
        assert await a.post(*lines) == rows
        # New ones go where the names lead now.
        fresh = [{**line, "clientId": client_id()} for line in lines]
        found = [row["chatId"] for row in await a.post(*fresh)]
        assert found == [other, pair_chat(a, b), joined]
        # What a name stands for by now is another message.
        await assert_refused(a, 4003, {**lines[0], "chatId": other}, "message[0].clientId")
        await b.ok("dissolve_group", groupId=left)
        assert await a.post(*lines) == rows

    async def test_when_the_other_is_gone(self, dial: Dialer) -> None:
        """A retry is confirmed also when the account that it went to was deleted since."""
        a, b = await dial.pair()
        mine = client_id()
        row = await a.say(b.user_id, "x", clientId=mine)
        await b.ok("delete_account", password=b.password)
        assert await a.say(b.user_id, "x", clientId=mine) == row
        await assert_refused(a, 4003, text(b.user_id, "y", clientId=mine))
        await assert_refused(a, 6004, text(b.user_id, "x", clientId=client_id()))

    async def test_other_content(self, dial: Dialer) -> None:
        """With any other content it is refused with 4003, and the first stays as it is."""
        a, b = await dial.pair()
        c = await dial.user()
        await befriend(a, c)
        known = await a.say(b.user_id, "known")
        mine = client_id()
        row = await a.say(b.user_id, "x", clientId=mine)
        info = {"category": "0", "content": "x"}
        others = [
            text(b.user_id, "y", clientId=mine),
            text(b.user_id, "x ", clientId=mine),
            text(b.user_id, "X", clientId=mine),
            text(c.user_id, "x", clientId=mine),
            text(b.user_id, "x", clientId=mine, type="5"),
            text(b.user_id, "x", clientId=mine, info=[info, info]),
            text(b.user_id, "x", clientId=mine, replyTo=known["msgId"]),
            text(b.user_id, "x", clientId=mine, mentions=[b.user_id]),
            text(b.user_id, "x", clientId=mine, expire=3600),
        ]
        for other in others:
            await assert_refused(a, 4003, other, "message[0].clientId")
        assert await a.say(b.user_id, "x", clientId=mine) == row
        got = await b.take(2)
        assert [content(each) for each in got] == ["known", "x"]
        await b.expect_nothing()

    async def test_same_content_in_another_shape(self, dial: Dialer) -> None:
        """Contents are compared after normalising: shape and untrusted fields do not matter."""
        a, b = await dial.pair()
        mine = client_id()
        row = await a.say(b.user_id, "x", clientId=mine)
        shapes: list[Frame] = [
            {"type": 1},
            {"info": {"category": "0", "content": "x"}},
            {"info": [{"category": 0, "content": "x", "size": 5}]},
            {"fromId": a.user_id},
            {"chatId": pair_chat(a, b)},
            {"chatId": "my own"},
            {"createTime": "2024-05-01T10:00:00"},
            {"replyTo": "", "mentions": None, "expire": None},
            {"mentions": []},
            {"color": "red"},
        ]
        for shape in shapes:
            assert await a.say(b.user_id, "x", **{"clientId": mine, **shape}) == row, shape
        await b.take(1)
        await b.expect_nothing()

    async def test_conflict_within_one_list(self, dial: Dialer) -> None:
        """One id for two contents within one list: nothing of the list is accepted."""
        a, b = await dial.pair()
        mine = client_id()
        reply = await a.refused(
            4003,
            frame([text(b.user_id, "x", clientId=mine), text(b.user_id, "y", clientId=mine)]),
        )
        assert [row["index"] for row in reply["failed"]] == [1]
        await b.expect_nothing()

    async def test_without_ids_nothing_is_a_repeat(self, dial: Dialer) -> None:
        """Equal messages without a `clientId` are two messages."""
        a, b = await dial.pair()
        one, other = await a.post(text(b.user_id, "x"), text(b.user_id, "x", clientId=""))
        assert one["msgId"] != other["msgId"]
        await b.take(2)
