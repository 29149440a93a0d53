"""Section 2.1, messages: what a client may send, what it is refused, and what arrives."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from .process import StartServer
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

DATE = "%Y-%m-%dT%H:%M:%S"


class TestShape:
    """A message arrives as the interface document says, with the additions beside."""

    async def test_delivered(self, dial: Dialer) -> None:
        """Strings and a list, the server's own chatId and clock, msgId, seq and time."""
        a, b = await dial.pair()
        before = time.time()
        row = await a.say(b.user_id, "hi 😀")
        packet = await b.packet()
        after = time.time()
        assert set(packet) == {"status", "pushId", "message"}
        assert (packet["status"], packet["pushId"]) == (1, b.push_id)
        [got] = packet["message"]
        assert {key: got[key] for key in ("chatId", "fromId", "toId", "type", "info")} == {
            "chatId": pair_chat(a, b),
            "fromId": a.user_id,
            "toId": b.user_id,
            "type": "1",
            "info": [{"category": "0", "content": "hi 😀"}],
        }
        assert set(row) == {"msgId", "chatId", "createTime"}
        assert {key: got[key] for key in row} == row
        assert got["msgId"].isdecimal()
        assert isinstance(got["seq"], int)
        assert before - 1 <= got["time"] / 1000 <= after + 1
        shown = datetime.fromtimestamp(got["time"] // 1000, UTC).strftime(DATE)
        assert got["createTime"] == shown
        assert "clientId" not in got
        assert "event" not in got

    async def test_same_chat_both_ways(self, dial: Dialer) -> None:
        """The server's chatId is the same for both sides of a pair."""
        a, b = await dial.pair()
        one = await a.say(b.user_id, "x")
        two = await b.say(a.user_id, "y")
        assert one["chatId"] == two["chatId"] == pair_chat(a, b)
        [got] = await a.expect_delivery()
        assert (got["chatId"], got["fromId"], got["toId"]) == (
            pair_chat(a, b),
            b.user_id,
            a.user_id,
        )

    @pytest.mark.parametrize("kind", ["1", 1])
    @pytest.mark.parametrize("category", ["0", 0])
    @pytest.mark.parametrize("listed", [True, False])
    async def test_numbers_and_single_infos(
        self, dial: Dialer, kind: object, category: object, listed: bool
    ) -> None:
        """Type and category as number or string, info as object or list: strings and a list."""
        a, b = await dial.pair()
        info: Any = {"category": category, "content": "x"}
        await a.post(text(b.user_id, "", type=kind, info=[info] if listed else info))
        [got] = await b.expect_delivery()
        assert got["type"] == "1"
        assert got["info"] == [{"category": "0", "content": "x"}]

    async def test_several_infos_keep_their_order(self, dial: Dialer) -> None:
        """A message has 1 to 20 infos, in the sender's order."""
        a, b = await dial.pair()
        infos = [{"category": "0", "content": f"{n}"} for n in range(20)]
        await a.post(text(b.user_id, "", info=infos))
        [got] = await b.expect_delivery()
        assert got["info"] == infos

    @pytest.mark.parametrize(
        "words",
        [
            "a",
            " ",
            "a\nb\r\nc\td",
            '"\\/\b\f',
            "\u2028\u2029\u0085\u200d\ufeff",
            "\u0001\u001f\u007f",
            "é e\u0301 ﬁ İ ß 国人 👩‍👩‍👧 🇩🇪",
            "\U0010ffff\ue000\uffff",
            "'; DROP TABLE message; --",
            "</script><b>%s%n${x}{{y}}",
        ],
    )
    async def test_text_arrives_as_it_is(self, dial: Dialer, words: str) -> None:
        """Every text but one with U+0000 arrives character by character the same."""
        a, b = await dial.pair()
        await a.say(b.user_id, words)
        [got] = await b.expect_delivery()
        assert content(got) == words
        [*_, shown] = await b.ok("history", userId=a.user_id)
        assert content(shown) == words

    async def test_unknown_fields_do_not_arrive(self, dial: Dialer) -> None:
        """Unknown fields are ignored, and those that only the server sets are not trusted."""
        a, b = await dial.pair()
        await a.say(
            b.user_id,
            "x",
            msgId="1",
            seq=99,
            time=5,
            event={"name": "kicked"},
            recalled=True,
            color="red",
        )
        [got] = await b.expect_delivery()
        assert not {"color", "event", "recalled"} & set(got)
        assert got["seq"] != 99
        assert got["time"] > 1_600_000_000_000

    async def test_absent_and_null_fields(self, dial: Dialer) -> None:
        """Absent, null and empty mean the same for every optional field."""
        a, b = await dial.pair()
        info = [{"category": "0", "content": "x"}]
        await a.post({"toId": b.user_id, "type": "1", "info": info})
        nothing = dict.fromkeys(
            ("chatId", "fromId", "createTime", "clientId", "replyTo", "mentions", "expire")
        )
        await a.post({"toId": b.user_id, "type": "1", "info": info, **nothing})
        empty = dict.fromkeys(("chatId", "fromId", "createTime", "clientId", "replyTo"), "")
        await a.post({"toId": b.user_id, "type": "1", "info": info, **empty})
        got = await b.take(3)
        assert [content(each) for each in got] == ["x", "x", "x"]
        assert not any("replyTo" in each or "mentions" in each for each in got)

    async def test_needs_no_device(self, dial: Dialer) -> None:
        """Sending needs a session, not a device."""
        a, b = await dial.pair()
        plain = await dial()
        await plain.login(a.phone)
        reply = await plain.send([text(b.user_id, "x")])
        assert (reply["status"], reply["pushId"], len(reply["result"])) == (1, "", 1)
        [got] = await b.expect_delivery()
        assert got["fromId"] == a.user_id

    async def test_without_a_session(self, dial: Dialer) -> None:
        """Without a session a list answers 11001 and nothing arrives."""
        _, b = await dial.pair()
        wire = await dial()
        await wire.refused(11001, frame([text(b.user_id, "x")], b.push_id))
        await b.expect_nothing()


class TestAddressing:
    """`toId` decides for a person; who may write to whom."""

    @pytest.mark.parametrize("chat", ["", "mine", "1-2", "10001-10002", "system", "数", "x" * 64])
    async def test_any_chat_id_is_accepted(self, dial: Dialer, chat: str) -> None:
        """For type 1 any `chatId` of the client's making is accepted; the server's own arrives."""
        a, b = await dial.pair()
        row = await a.say(b.user_id, "x", chatId=chat)
        assert row["chatId"] == pair_chat(a, b)
        [got] = await b.expect_delivery()
        assert got["chatId"] == pair_chat(a, b)

    async def test_from_id(self, dial: Dialer) -> None:
        """`fromId` is empty or the sender's own id, else 4004."""
        a, b = await dial.pair()
        await a.say(b.user_id, "x", fromId=a.user_id)
        [got] = await b.expect_delivery(ack=True)
        assert got["fromId"] == a.user_id
        for other in (b.user_id, "1", "system", "x"):
            await assert_refused(a, 4004, text(b.user_id, "x", fromId=other))
        await b.expect_nothing()

    @pytest.mark.parametrize("unknown", ["1", "99999999", "nobody", "-1", "9" * 30, "10001 "])
    async def test_unknown_user(self, dial: Dialer, unknown: str) -> None:
        """A user id that is unknown: 6004."""
        a = await dial.user()
        await assert_refused(a, 6004, text(unknown, "x"))

    async def test_nobody(self, dial: Dialer) -> None:
        """Type 1 without `toId` reaches nobody and is refused."""
        a, b = await dial.pair()
        reply = await a.send([text("", "x", chatId=pair_chat(a, b))])
        assert reply["status"] in (4003, 4005, 6004)

    @pytest.mark.parametrize("kind", ["1", "5"])
    async def test_strangers(self, dial: Dialer, kind: str) -> None:
        """Types 1 and 5 to a person need friendship, else 4004."""
        a, b = await dial.user(started=True), await dial.user(started=True)
        await assert_refused(a, 4004, text(b.user_id, "x", type=kind))
        await b.expect_nothing()

    async def test_a_request_is_not_a_friendship(self, dial: Dialer) -> None:
        """One who has only asked may not write yet, and one who was asked neither."""
        a, b = await dial.user(started=True), await dial.user(started=True)
        await a.ok("add_friend", userId=b.user_id)
        await b.expect_delivery(ack=True)
        await assert_refused(a, 4004, text(b.user_id, "x"))
        await assert_refused(b, 4004, text(a.user_id, "x"))

    async def test_no_longer_friends(self, dial: Dialer) -> None:
        """After `delete_friend` neither may write to the other."""
        a, b = await dial.pair()
        await a.ok("delete_friend", userId=b.user_id)
        await assert_refused(a, 4004, text(b.user_id, "x"))
        await assert_refused(b, 4004, text(a.user_id, "x"))

    async def test_strangers_allowed(self, server: StartServer) -> None:
        """The setting `strangers = "allow"` lifts it."""
        own = server(auth_strangers="allow")
        a, b = await own.dial.user(), await own.dial.user(started=True)
        await a.say(b.user_id, "x")
        [got] = await b.expect_delivery()
        assert content(got) == "x"

    async def test_task_to_a_person(self, dial: Dialer) -> None:
        """Type 5 goes to the user `toId` when no group is named."""
        a, b = await dial.pair()
        await a.post(text(b.user_id, "do it", type="5"), text(b.user_id, "do", type=5))
        got = await b.take(2)
        assert [each["type"] for each in got] == ["5", "5"]
        assert {each["chatId"] for each in got} == {pair_chat(a, b)}

    @pytest.mark.parametrize("kind", ["3", "4", "6", "7"])
    async def test_group_types_need_a_group(self, dial: Dialer, kind: str) -> None:
        """Types 3, 4, 6 and 7 without a group of the sender's: 4005."""
        a, b = await dial.pair()
        for to, chat in ((b.user_id, ""), ("", pair_chat(a, b)), ("", "g1"), ("nobody", "")):
            await assert_refused(a, 4005, text(to, "x", type=kind, chatId=chat))
        await b.expect_nothing()

    async def test_task_to_nobody(self, dial: Dialer) -> None:
        """Type 5 that names neither a group nor a user is refused."""
        a = await dial.user()
        reply = await a.send([text("", "x", type="5")])
        assert reply["status"] == 4005

    @pytest.mark.parametrize("kind", ["0", 0])
    async def test_system_is_the_servers(self, dial: Dialer, kind: object) -> None:
        """Type 0 is the server's: a client that sends one gets 4004."""
        a, b = await dial.pair()
        await assert_refused(a, 4004, text(b.user_id, "x", type=kind))
        await b.expect_nothing()

    @pytest.mark.parametrize("kind", ["8", "-1", "x", "1x", 8, -1, 1.5, True, ["1"], {"a": 1}])
    async def test_other_types(self, dial: Dialer, kind: object) -> None:
        """There are no other types: 4003, which names the field."""
        a, b = await dial.pair()
        reply = await a.refused(4003, frame([text(b.user_id, "x", type=kind)]))
        assert reply["field"] == "message[0].type"

    @pytest.mark.parametrize("category", ["4", "-1", "x", 4, -1, 0.5, False, []])
    async def test_other_categories(self, dial: Dialer, category: object) -> None:
        """There are no other categories: 4003, which names the field."""
        a, b = await dial.pair()
        info = [{"category": category, "content": "x"}]
        reply = await a.refused(4003, frame([text(b.user_id, "", info=info)]))
        assert reply["field"] == "message[0].info[0].category"


class TestRequests:
    """A client's type 2 to a user is `add_friend`; friendship tells itself by events."""

    async def test_type_2_is_add_friend(self, dial: Dialer) -> None:
        """Its text is the description; the one asked gets type 2 with `friend_request`."""
        a, b = await dial.user(started=True), await dial.user(started=True)
        await a.say(b.user_id, "it is me", type="2")
        [got] = await b.expect_delivery(ack=True)
        assert (got["type"], got["fromId"], got["toId"]) == ("2", a.user_id, b.user_id)
        assert got["chatId"] == pair_chat(a, b)
        assert got["event"] == {
            "name": "friend_request",
            "userId": a.user_id,
            "description": "it is me",
        }
        assert content(got)
        [waiting] = await b.ok("friend_requests")
        assert (waiting["user"]["id"], waiting["description"]) == (a.user_id, "it is me")

    async def test_accepted(self, dial: Dialer) -> None:
        """The one who had asked gets type 0 with `friend_accepted`, from the system."""
        a, b = await dial.user(started=True), await dial.user(started=True)
        await a.say(b.user_id, "it is me", type="2")
        await b.ok("accept_friend", userId=a.user_id)
        [got] = await a.expect_delivery(ack=True)
        assert (got["type"], got["fromId"], got["chatId"]) == ("0", "", "system")
        assert got["event"]["name"] == "friend_accepted"
        assert got["event"]["userId"] == b.user_id
        assert content(got)
        await a.say(b.user_id, "now we are")

    async def test_both_asked(self, dial: Dialer) -> None:
        """When they had asked already, both are friends now."""
        a, b = await dial.user(started=True), await dial.user(started=True)
        await a.say(b.user_id, "please", type="2")
        await b.say(a.user_id, "please", type="2")
        await a.say(b.user_id, "friends")
        await b.say(a.user_id, "friends")

    async def test_type_2_to_nobody(self, dial: Dialer) -> None:
        """Type 2 to an unknown user: 6004."""
        a = await dial.user()
        await assert_refused(a, 6004, text("99999999", "x", type="2"))


class TestTimes:
    """`createTime` is the server's clock; what a client sends there is never refused."""

    @pytest.mark.parametrize(
        "given",
        [
            "",
            "1970-01-01T00:00:00",
            "9999-12-31T23:59:59",
            "2024-02-30T99:99:99",
            "2024-05-01T10:00:00+05:45",
            "yesterday",
            "x" * 1000,
            "2024-05-01 10:00",
            0,
            -1,
            1.5,
            1_700_000_000_000,
            True,
            None,
            [],
            {"year": 2024},
        ],
    )
    async def test_not_trusted_and_not_refused(self, dial: Dialer, given: object) -> None:
        """Whatever a client sends as `createTime`, the server's clock stands in the message."""
        a, b = await dial.pair()
        now = time.time()
        row = await a.say(b.user_id, "x", createTime=given)
        [got] = await b.expect_delivery()
        assert got["createTime"] == row["createTime"]
        stamp = datetime.strptime(got["createTime"], DATE).replace(tzinfo=UTC).timestamp()
        assert now - 2 <= stamp <= time.time() + 1

    async def test_order_is_not_the_clients(self, dial: Dialer) -> None:
        """Order comes from msgId, never from what clients say about time."""
        a, b = await dial.pair()
        years = ("9999", "1970", "2024")
        rows = [await a.say(b.user_id, y, createTime=f"{y}-01-01T00:00:00") for y in years]
        ids = [int(row["msgId"]) for row in rows]
        assert ids == sorted(set(ids))
        shown = await b.ok("history", userId=a.user_id, limit=3)
        assert [content(each) for each in shown] == list(years)

    async def test_the_configured_zone(self, server: StartServer) -> None:
        """Dates are in the configured zone, in one format; `time` is the same everywhere."""
        own = server(server_zone="Asia/Kathmandu")
        a, b = await own.dial.pair()
        await a.say(b.user_id, "x")
        [got] = await b.expect_delivery()
        shown = datetime.strptime(got["createTime"], DATE).replace(tzinfo=UTC).timestamp()
        assert shown - got["time"] // 1000 == 5 * 3600 + 45 * 60
        assert abs(got["time"] / 1000 - time.time()) < 10


class TestLimits:
    """1 to 100 messages a frame, 1 to 20 infos a message, text up to 10,000 characters."""

    async def test_messages(self, dial: Dialer) -> None:
        """100 messages are accepted in order; none or 101 are 4003."""
        a, b = await dial.pair()
        for count in (0, 101):
            reply = await a.refused(4003, frame([text(b.user_id, f"{n}") for n in range(count)]))
            assert reply["field"] == "message"
        rows = await a.post(*(text(b.user_id, f"{n}") for n in range(100)))
        got = await b.take(100)
        assert [content(each) for each in got] == [f"{n}" for n in range(100)]
        assert [each["msgId"] for each in got] == [row["msgId"] for row in rows]
        ids = [int(row["msgId"]) for row in rows]
        assert ids == sorted(set(ids))

    @pytest.mark.parametrize("infos", [[], None, "", 21])
    async def test_infos(self, dial: Dialer, infos: object) -> None:
        """No info, or 21: 4003, which names the field."""
        a, b = await dial.pair()
        if infos == 21:
            infos = [{"category": "0", "content": "x"}] * 21
        reply = await a.refused(4003, frame([text(b.user_id, "", info=infos)]))
        assert reply["field"] == "message[0].info"
        await b.expect_nothing()

    @pytest.mark.parametrize("character", ["x", "密", "😀"])
    async def test_text(self, dial: Dialer, character: str) -> None:
        """10,000 characters are accepted whatever their bytes, 10,001 are 4003."""
        a, b = await dial.pair()
        await a.say(b.user_id, character * 10_000)
        [got] = await b.expect_delivery(ack=True)
        assert content(got) == character * 10_000
        long = text(b.user_id, character * 10_001)
        await assert_refused(a, 4003, long, "message[0].info[0].content")
        await b.expect_nothing()

    @pytest.mark.parametrize(
        ("name", "bad"),
        [
            ("toId", []),
            ("chatId", {}),
            ("fromId", True),
            ("fromId", "a\0b"),
            ("toId", "a\0b"),
            ("clientId", 5.5),
            ("clientId", "x" * 65),
            ("clientId", "a\0b"),
            ("replyTo", []),
            ("replyTo", "a\0b"),
            ("mentions", "10001"),
            ("mentions", {"a": 1}),
            ("expire", "soon"),
            ("expire", -1),
            ("expire", 2**53),
            ("expire", [1]),
        ],
    )
    async def test_bad_fields(self, dial: Dialer, name: str, bad: object) -> None:
        """A wrong type, U+0000, a bad range or length: 4003, which names the field."""
        a, b = await dial.pair()
        reply = await a.refused(4003, frame([text(b.user_id, "x", **{name: bad})]))
        assert reply["field"] == f"message[0].{name}"
        await b.expect_nothing()

    async def test_nul_in_a_text(self, dial: Dialer) -> None:
        """U+0000 in a text: 4003, which names the field."""
        a, b = await dial.pair()
        reply = await a.refused(4003, frame([text(b.user_id, "a\0b")]))
        assert reply["field"] == "message[0].info[0].content"
        await b.expect_nothing()

    async def test_longest_client_id(self, dial: Dialer) -> None:
        """A `clientId` holds 64 characters, whatever their bytes."""
        a, b = await dial.pair()
        for each in ("x" * 64, "密" * 64):
            unique = client_id() + each
            await a.say(b.user_id, "x", clientId=unique[:64])
        await b.take(2)


class TestAllOrNone:
    """A frame with one bad message accepts none."""

    async def test_nothing_of_it_counts(self, dial: Dialer) -> None:
        """One bad message among many: none is stored, the good ones' clientIds are still free."""
        a, b = await dial.pair()
        mine = client_id()
        good = text(b.user_id, "good", clientId=mine)
        reply = await a.refused(6004, frame([good, text("99999999", "bad"), good]))
        assert [row["index"] for row in reply["failed"]] == [1]
        assert reply["failed"][0]["status"] == 6004
        assert "result" not in reply
        await b.expect_nothing()
        shown = await a.ok("history", userId=b.user_id)
        assert "good" not in str(shown)
        await a.say(b.user_id, "other content", clientId=mine)
        [got] = await b.expect_delivery()
        assert content(got) == "other content"

    async def test_status_is_the_first_failures(self, dial: Dialer) -> None:
        """`status` is the first failure's code, and `failed` lists each of them."""
        a, b = await dial.pair()
        stranger = await dial.user()
        reply = await a.send(
            [
                text(b.user_id, "good"),
                text(stranger.user_id, "stranger"),
                text("99999999", "unknown"),
                text(b.user_id, "good"),
                text(b.user_id, "system", type="0"),
                text("", "no group", type="7"),
            ]
        )
        assert reply["status"] == 4004
        rows = [(row["index"], row["status"]) for row in reply["failed"]]
        assert rows == [(1, 4004), (2, 6004), (4, 4004), (5, 4005)]
        await b.expect_nothing()

    async def test_bad_fields_among_others(self, dial: Dialer) -> None:
        """Bad fields are listed like other failures, with the field of each."""
        a, b = await dial.pair()
        reply = await a.send(
            [
                text(b.user_id, "x" * 10_001),
                text(b.user_id, "good"),
                text("99999999", "unknown"),
                text(b.user_id, "x", clientId="x" * 65),
            ]
        )
        assert (reply["status"], reply["field"]) == (4003, "message[0].info[0].content")
        rows = [(row["index"], row["status"]) for row in reply["failed"]]
        assert rows == [(0, 4003), (2, 6004), (3, 4003)]
        assert reply["failed"][2]["field"] == "message[3].clientId"
        await b.expect_nothing()

    async def test_seq_has_no_hole_after_it(self, dial: Dialer) -> None:
        """A refused list uses up no seq."""
        a, b = await dial.pair()
        await a.say(b.user_id, "1")
        await a.send([text(b.user_id, "x"), text("99999999", "bad")])
        await a.say(b.user_id, "2")
        one, two = await b.take(2)
        assert two["seq"] == one["seq"] + 1


class TestCopies:
    """The sender's other devices get a copy, with the `clientId`."""

    async def test_copy(self, dial: Dialer) -> None:
        """The copy is the message with the sender's clientId; the sending device gets none."""
        a, b = await dial.pair()
        second = await dial.device(a)
        mine = client_id()
        row = await a.say(b.user_id, "x", clientId=mine)
        [copy] = await second.expect_delivery()
        [got] = await b.expect_delivery()
        assert (copy["fromId"], copy["toId"]) == (a.user_id, b.user_id)
        assert (copy["msgId"], copy["clientId"], copy["seq"]) == (row["msgId"], mine, 1)
        assert "clientId" not in got
        await a.expect_nothing()

    async def test_receivers_devices(self, dial: Dialer) -> None:
        """Each device of the receiver gets it, with a seq of its own."""
        a, b = await dial.pair()
        await a.say(b.user_id, "before")
        await b.take(1)
        second = await dial.device(b)
        await a.say(b.user_id, "x")
        [one] = await b.expect_delivery()
        [other] = await second.expect_delivery()
        assert one["msgId"] == other["msgId"]
        assert (other["seq"], content(other)) == (1, "x")

    async def test_a_copy_waits_too(self, dial: Dialer) -> None:
        """A device that is away gets its copy when it comes back."""
        a, b = await dial.pair()
        second = await dial.device(a)
        second.close()
        await a.say(b.user_id, "x", clientId=client_id())
        again, reply = await dial.resume(second.push_id)
        assert reply["queued"] == 1
        [copy] = await again.expect_delivery()
        assert copy["fromId"] == a.user_id

    async def test_sent_without_a_device(self, dial: Dialer) -> None:
        """All devices get a copy of what a connection without device sent."""
        a, b = await dial.pair()
        plain = await dial()
        await plain.login(a.phone)
        await plain.say(b.user_id, "x")
        [copy] = await a.expect_delivery()
        assert content(copy) == "x"
        await b.expect_delivery()


class TestReplies:
    """`replyTo`, `mentions` and `expire` are the sender's additions."""

    async def test_reply_to(self, dial: Dialer) -> None:
        """`replyTo` is a msgId of that chat and arrives as it was sent."""
        a, b = await dial.pair()
        row = await a.say(b.user_id, "question")
        await b.say(a.user_id, "answer", replyTo=row["msgId"])
        [got] = await a.expect_delivery()
        assert got["replyTo"] == row["msgId"]

    @pytest.mark.parametrize("unknown", ["999999999", "0", "x", "-1"])
    async def test_reply_to_the_unknown(self, dial: Dialer, unknown: str) -> None:
        """`replyTo` an unknown message: 4005, or 4003 where it is no msgId at all."""
        a, b = await dial.pair()
        reply = await a.send([text(b.user_id, "x", replyTo=unknown)])
        assert reply["status"] == 4005 or (not unknown.isdecimal() and reply["status"] == 4003)

    async def test_reply_to_another_chat(self, dial: Dialer) -> None:
        """`replyTo` a message of another chat is refused, one's own chats too."""
        a, b = await dial.pair()
        c = await dial.user()
        await befriend(a, c)
        row = await a.say(c.user_id, "elsewhere")
        await assert_refused(a, 4005, text(b.user_id, "x", replyTo=row["msgId"]))
        await b.expect_nothing()

    async def test_mentions(self, dial: Dialer) -> None:
        """`mentions` arrive as a list of user ids."""
        a, b = await dial.pair()
        await a.say(b.user_id, "@b", mentions=[b.user_id, a.user_id])
        [got] = await b.expect_delivery()
        assert got["mentions"] == [b.user_id, a.user_id]

    @pytest.mark.slow
    async def test_expire(self, dial: Dialer) -> None:
        """After `expire` seconds a message is neither delivered nor shown."""
        a, b = await dial.pair()
        b.close()
        await a.post(text(b.user_id, "short", expire=1), text(b.user_id, "long", expire=3600))
        await a.say(b.user_id, "plain")
        shown = await a.ok("history", userId=b.user_id, limit=3)
        assert [content(each) for each in shown] == ["short", "long", "plain"]
        with pytest.raises(TimeoutError):
            await a.recv_line(2.1)
        again, reply = await dial.resume(b.push_id)
        seen: list[Frame] = []
        while not seen or content(seen[-1]) != "plain":
            seen += (await again.packet())["message"]
        assert [content(each) for each in seen if "event" not in each] == ["long", "plain"]
        assert seen[-1]["seq"] == reply["last"]
        places = [each.get("event", {}).get("seqFrom", each["seq"]) for each in seen]
        assert places == [each["seq"] + 1 for each in [{"seq": places[0] - 1}, *seen[:-1]]]
        shown = await a.ok("history", userId=b.user_id, limit=100)
        assert "short" not in [content(each) for each in shown]

    async def test_expire_in_time(self, dial: Dialer) -> None:
        """Before that it is delivered like any other."""
        a, b = await dial.pair()
        await a.say(b.user_id, "x", expire=60)
        [got] = await b.expect_delivery()
        assert content(got) == "x"
