"""Section 3, what was said: `chats`, `history`, `recall`, `search_messages`, `status`, `typing`.

How a read mark moves and who is told of it stands in `test_ack`; here what one reads of it.
"""

import asyncio
import time
from typing import Any

import pytest

from .people import (
    USER,
    all_pages,
    assert_envelope,
    at_once,
    failed,
    ids,
    is_date,
    make_friends,
    new_tag,
    users,
)
from .process import StartServer
from .wire import Dialer, Frame, Wire, content, lines, pair_chat, text

# What every message has that is read back, whatever else it has.
MESSAGE = {"chatId", "fromId", "toId", "type", "info", "createTime", "msgId", "time"}

# Places that no message id can name.
NO_PLACES = ["x", "-1", "1.5", "1 ", "１", "9" * 17, "9" * 70]


async def say_all(a: Wire, b: Wire, words: list[str]) -> list[str]:
    """Send texts in one list; return their msgIds."""
    rows: list[Frame] = []
    for start in range(0, len(words), 100):
        rows += await a.post(*(text(b.user_id, each) for each in words[start : start + 100]))
    return [row["msgId"] for row in rows]


async def pair(dial: Dialer) -> tuple[Wire, Wire]:
    """Return two friends without a device, so that nothing is pushed."""
    a, b = await users(dial, 2)
    await make_friends(a, b)
    return a, b


def numbers(found: list[Frame]) -> list[str]:
    """Return the msgIds of messages, which must be as the contract has them."""
    for message in found:
        assert set(message) >= MESSAGE, message
        assert "seq" not in message, message
        assert is_date(message["createTime"])
    return [message["msgId"] for message in found]


async def talk(wire: Wire, **fields: object) -> list[str]:
    """Return the texts of a page of history."""
    return [content(message) for message in await wire.ok("history", **fields)]


async def chat_of(wire: Wire, chat: str) -> Frame:
    """Return one's entry of a chat."""
    [found] = [each for each in await wire.ok("chats") if each["chatId"] == chat]
    assert isinstance(found, dict)
    return found


class TestHistory:
    """A chat as it was said, oldest first."""

    async def test_message(self, dial: Dialer) -> None:
        """The same message for both, as it was delivered, without a `seq`."""
        a, b = await dial.pair()
        row = await a.say(b.user_id, "hi 😀", clientId=f"c{new_tag()}")
        [got] = await b.expect_delivery()
        for wire in (a, b):
            reply = await wire.command("history", chatId=row["chatId"], limit=1)
            assert_envelope(reply, "history", list, "next")
            [read] = reply["result"]
            assert {key: read[key] for key in MESSAGE} == {key: got[key] for key in MESSAGE}
            assert numbers([read]) == [row["msgId"]]
        assert "clientId" not in (await b.ok("history", chatId=row["chatId"], limit=1))[0]

    async def test_by_chat_or_user(self, dial: Dialer) -> None:
        """`chatId` and `userId` name the same pair."""
        a, b = await pair(dial)
        await a.say(b.user_id, "x")
        for fields in ({"chatId": pair_chat(a, b)}, {"userId": b.user_id}):
            assert (await talk(a, **fields))[-1] == "x"
            assert await talk(a, **fields, before=None, after="", limit=None) == await talk(
                a, **fields
            )

    async def test_newest(self, dial: Dialer) -> None:
        """Without a place the newest ten, oldest first; `limit` says how many."""
        a, b = await pair(dial)
        sent = await say_all(a, b, [f"{n}" for n in range(15)])
        chat = {"userId": b.user_id}
        assert numbers(await a.ok("history", **chat)) == sent[-10:]
        for limit in (1, 7, 15):
            assert numbers(await a.ok("history", **chat, limit=limit)) == sent[-limit:]
        assert numbers(await a.ok("history", **chat, limit=100))[-15:] == sent

    async def test_places(self, dial: Dialer) -> None:
        """`before` and `after` are exclusive, and any number is a place."""
        a, b = await pair(dial)
        sent = await say_all(a, b, [f"{n}" for n in range(9)])
        chat: dict[str, Any] = {"userId": b.user_id}
        assert numbers(await a.ok("history", **chat, before=sent[5], limit=3)) == sent[2:5]
        assert numbers(await a.ok("history", **chat, after=sent[2], limit=3)) == sent[3:6]
        assert numbers(await a.ok("history", **chat, after=sent[-1])) == []
        assert numbers(await a.ok("history", **chat, after="9007199254740991")) == []
        assert numbers(await a.ok("history", **chat, before="9007199254740991", limit=9)) == sent
        assert numbers(await a.ok("history", **chat, before="1")) == []
        everything = numbers(await a.ok("history", **chat, after="0", limit=100))
        assert everything[-9:] == sent
        # A message of another chat is a place like any other.
        c = await dial.user()
        await make_friends(a, c)
        foreign = (await c.say(a.user_id, "other"))["msgId"]
        assert numbers(await a.ok("history", **chat, before=foreign, limit=9)) == sent
        assert numbers(await a.ok("history", **chat, after=foreign)) == []

    async def test_backwards(self, dial: Dialer) -> None:
        """By `next` as `before` each of 45 once and in order, though more are said meanwhile."""
        a, b = await pair(dial)
        sent = await say_all(a, b, [f"{n}" for n in range(45)])
        chat = {"userId": b.user_id}
        seen: list[str] = []
        reply = await a.command("history", **chat, limit=10)
        while True:
            seen = numbers(reply["result"]) + seen
            await say_all(b, a, ["new"] * 3)
            if "next" not in reply:
                break
            reply = await a.command("history", **chat, limit=10, before=reply["next"])
        assert seen[-45:] == sent
        assert len(seen) == len(set(seen))
        assert seen == sorted(seen, key=int)

    async def test_forwards(self, dial: Dialer) -> None:
        """By `next` as `after` everything, also what is said meanwhile."""
        a, b = await pair(dial)
        sent = await say_all(a, b, [f"{n}" for n in range(25)])
        seen: list[str] = []
        fields: dict[str, Any] = {"userId": b.user_id, "after": str(int(sent[0]) - 1)}
        late = 3
        while True:
            reply = await a.command("history", **fields, limit=10)
            seen += numbers(reply["result"])
            if late:
                sent += await say_all(b, a, ["new"])
                late -= 1
            if "next" not in reply:
                break
            fields["after"] = reply["next"]
        assert seen == sent[: len(seen)]
        assert len(seen) >= 25

    @pytest.mark.parametrize(
        ("field", "fields"),
        [
            ("after", {"before": "5", "after": "5"}),
            *(("before", {"before": place}) for place in [*NO_PLACES, 5, True]),
            *(("after", {"after": place}) for place in [*NO_PLACES, 5, {}]),
            *(("limit", {"limit": limit}) for limit in [0, -1, 101, 1.5, "x", True, 2**53]),
            ("chatId", {"chatId": 5}),
            ("chatId", {"chatId": "1" * 65}),
            ("userId", {"userId": ["x"]}),
        ],
    )
    async def test_bad_fields(self, dial: Dialer, field: str, fields: Any) -> None:
        """Both places at once, and what is no place, limit or id: 4003."""
        a, b = await pair(dial)
        chat = {} if field.endswith("Id") else {"userId": b.user_id}
        await failed(a, 4003, "history", [], field, **chat, **fields)

    @pytest.mark.parametrize("none", [{}, {"chatId": None}, {"userId": ""}])
    async def test_no_chat(self, dial: Dialer, none: Any) -> None:
        """Neither a chat nor a user: 4003."""
        await failed(await dial.user(), 4003, "history", [], **none)

    async def test_foreign(self, dial: Dialer) -> None:
        """Another pair's chat is not there for the caller: 4005 or 4004, whoever asks."""
        a, b = await pair(dial)
        c = await dial.user()
        await a.say(b.user_id, "secret")
        for chat in (
            pair_chat(a, b),
            f"{b.user_id}-{a.user_id}",
            f"system/{a.user_id}",
            "nothing",
            "-",
            "--",
            f"{c.user_id}-",
            f"-{c.user_id}",
            f"{c.user_id}-{a.user_id}",
            f"{c.user_id}-{c.user_id}",
            f"{c.user_id}-{'9' * 40}",
            f"{c.user_id}-９",
            f"0-{c.user_id}",
        ):
            for cmd in ("history", "search_messages", "typing"):
                reply = await c.command(cmd, chatId=chat, text="secret")
                assert reply["status"] in (4004, 4005), reply
                assert reply["result"] == ({} if cmd == "typing" else [])

    @pytest.mark.parametrize("user", ["1", "0", "-1", "abc", "9007199254740991", "9" * 30])
    async def test_unknown_user(self, dial: Dialer, user: str) -> None:
        """A user id that is unknown: 6004."""
        wire = await dial.user()
        await failed(wire, 6004, "history", [], "userId", userId=user)
        await failed(wire, 6004, "typing", {}, "userId", userId=user)

    async def test_nothing_said(self, dial: Dialer) -> None:
        """Somebody to whom one never wrote: an empty list."""
        a, b = await users(dial, 2)
        reply = await a.command("history", userId=b.user_id)
        assert_envelope(reply, "history", list)
        assert (reply["status"], reply["result"]) == (1, [])

    async def test_system(self, dial: Dialer) -> None:
        """One's own system messages are a chat, and nobody else's."""
        a, b = await pair(dial)
        [told] = await b.ok("history", chatId="system")
        assert (told["type"], told["fromId"], told["chatId"]) == ("0", "", "system")
        assert told["event"]["userId"] == a.user_id
        assert await a.ok("history", chatId="system") == []

    async def test_after_the_friendship(self, dial: Dialer) -> None:
        """What was said stays readable when the friendship ends, and with a block."""
        a, b = await pair(dial)
        await a.say(b.user_id, "stays")
        await b.ok("delete_friend", userId=a.user_id)
        await b.ok("block", userId=a.user_id)
        for wire, other in ((a, b), (b, a)):
            assert (await talk(wire, userId=other.user_id))[-1] == "stays"

    async def test_size_of_a_reply(self, dial: Dialer) -> None:
        """A reply line holds at most 1 MiB: the list ends early, with `next`."""
        a, b = await pair(dial)
        sent = []
        for _ in range(3):
            sent += await say_all(a, b, ["😀" * 10_000] * 10)
        fields: dict[str, Any] = {"userId": b.user_id, "limit": 100, "after": str(int(sent[0]) - 1)}
        seen: list[str] = []
        pages = 0
        while True:
            await a.send_line({"cmd": "history", **fields})
            line = await a.recv_line()
            assert len(line) <= 1_048_576
            a.ready.appendleft(line)
            reply = await a.reply()
            seen += numbers(reply["result"])
            pages += 1
            if "next" not in reply:
                break
            fields["after"] = reply["next"]
        assert seen == sent
        assert pages > 1

    async def test_own_writes(self, dial: Dialer) -> None:
        """What is pipelined behind a list sees it."""
        a, b = await pair(dial)
        message = {"status": 1, "pushId": "", "message": [text(b.user_id, "just now")]}
        for _ in range(20):
            await a.send_raw(lines(message, {"cmd": "history", "userId": b.user_id, "limit": 1}))
            sent, read = await a.reply(), await a.reply()
            assert numbers(read["result"]) == [sent["result"][0]["msgId"]]


class TestChats:
    """One's chats, the newest first, with what is unread."""

    async def test_entry(self, dial: Dialer) -> None:
        """The chat, the other one as one sees them, the last message, and the marks."""
        a, b = await dial.pair()
        await b.read_mark(chatId=pair_chat(a, b))
        rows = [await a.say(b.user_id, f"{n}") for n in range(3)]
        reply = await b.command("chats")
        assert_envelope(reply, "chats", list)
        entry = reply["result"][0]
        assert set(entry) == {"chatId", "kind", "user", "last", "unread", "read", "peerRead"}
        assert (entry["chatId"], entry["kind"]) == (pair_chat(a, b), "pair")
        assert set(entry["user"]) == USER
        assert (entry["user"]["id"], entry["user"]["phone"]) == (a.user_id, a.phone)
        assert numbers([entry["last"]]) == [rows[-1]["msgId"]]
        assert (content(entry["last"]), entry["unread"]) == ("2", 3)
        assert entry["read"].isdecimal()

    async def test_own_words_are_read(self, dial: Dialer) -> None:
        """What one says oneself is not unread."""
        a, b = await pair(dial)
        await a.say(b.user_id, "1")
        before = (await chat_of(b, pair_chat(a, b)))["unread"]
        await b.say(a.user_id, "2")
        entry = await chat_of(b, pair_chat(a, b))
        assert (content(entry["last"]), entry["unread"]) == ("2", before)

    async def test_read_marks(self, dial: Dialer) -> None:
        """A mark lowers what is unread, and the peer sees it as `peerRead`."""
        a, b = await dial.pair()
        rows = [await a.say(b.user_id, f"{n}") for n in range(4)]
        chat = pair_chat(a, b)
        await b.read_mark(chatId=chat, msgId=rows[1]["msgId"])
        await b.fence()
        entry = await chat_of(b, chat)
        assert (entry["unread"], entry["read"]) == (2, rows[1]["msgId"])
        assert (await chat_of(a, chat))["peerRead"] == rows[1]["msgId"]
        assert entry["peerRead"] == "0"
        await b.expect_delivery(4, ack=True)
        await b.read_mark(chatId=chat)
        await b.fence()
        entry = await chat_of(b, chat)
        assert (entry["unread"], entry["read"]) == (0, rows[3]["msgId"])

    async def test_order_and_pages(self, dial: Dialer) -> None:
        """By the newest message; by `next` each once; by number ten a page."""
        wire, *others = await users(dial, 23)
        await make_friends(wire, *others)
        for other in others:
            await other.say(wire.user_id, "hi")
        expected = [pair_chat(wire, other) for other in reversed(others)]
        reply = await wire.command("chats")
        assert_envelope(reply, "chats", list, "next")
        everything = await all_pages(wire, "chats")
        assert [entry["chatId"] for entry in everything][:22] == expected
        assert {entry["chatId"] for entry in everything} <= {*expected, "system"}
        by_number = [await wire.ok("chats", page=page) for page in (0, 1, 2, 3, 99)]
        assert [entry for page in by_number for entry in page] == everything
        assert await wire.ok("chats", page="1") == by_number[1]
        assert await wire.ok("chats", size=100) == everything
        await others[0].say(wire.user_id, "again")
        assert (await wire.ok("chats"))[0]["chatId"] == expected[-1]

    async def test_next_while_people_talk(self, dial: Dialer) -> None:
        """A chat that does not move is listed once, though others move to the front."""
        wire, *others = await users(dial, 23)
        await make_friends(wire, *others)
        for other in others:
            await other.say(wire.user_id, "hi")
        seen: list[str] = []
        reply = await wire.command("chats")
        talker = iter(others)
        while True:
            seen += [entry["chatId"] for entry in reply["result"]]
            if "next" not in reply:
                break
            await next(talker).say(wire.user_id, "moves")
            reply = await wire.command("chats", page=reply["next"])
        for other in others[2:]:
            assert seen.count(pair_chat(wire, other)) == 1

    async def test_bad_pages(self, dial: Dialer) -> None:
        """Pages are 0 and up or a `next`, sizes 1 to 100: else 4003."""
        wire = await dial.user()
        for page in (-1, "x", 1.5, [], "after:x", "9" * 30):
            for cmd in ("chats", "search_messages"):
                await failed(wire, 4003, cmd, [], "page", page=page, text="x")
            await wire.fence()
        for size in (0, 101, "x"):
            for cmd in ("chats", "search_messages"):
                await failed(wire, 4003, cmd, [], "size", size=size, text="x")
            await wire.fence()
        assert await wire.ok("chats", page="5") == []

    async def test_alone(self, dial: Dialer) -> None:
        """Who never talked has none."""
        reply = await (await dial.user()).command("chats")
        assert_envelope(reply, "chats", list)
        assert (reply["status"], reply["result"]) == (1, [])

    async def test_large_last_messages(self, dial: Dialer) -> None:
        """A reply line of at most 1 MiB, whatever was said last."""
        wire, *others = await users(dial, 30)
        await make_friends(wire, *others)
        await asyncio.gather(*(other.say(wire.user_id, "😀" * 10_000) for other in others))
        seen, page = [], ""
        while True:
            await wire.send_line({"cmd": "chats", "size": 100, "page": page})
            line = await wire.recv_line()
            assert len(line) <= 1_048_576
            wire.ready.appendleft(line)
            reply = await wire.reply()
            seen += [entry["chatId"] for entry in reply["result"]]
            page = reply.get("next", "")
            if not page:
                break
        assert sorted(set(seen) - {"system"}) == sorted(pair_chat(wire, each) for each in others)


class TestRecall:
    """One's own message is taken back; a stub stays in its place."""

    async def test_recall(self, dial: Dialer) -> None:
        """An empty object; both sides get the event, and history shows a stub."""
        a, b = await dial.pair()
        other = await dial.device(a)
        row = await a.say(b.user_id, "regret")
        await b.expect_delivery(ack=True)
        await other.expect_delivery(ack=True)
        reply = await a.command("recall", msgId=row["msgId"])
        assert_envelope(reply, "recall", dict)
        assert (reply["status"], reply["result"]) == (1, {})
        for wire in (b, other):
            [told] = await wire.expect_delivery(ack=True)
            assert told["type"] == "0"
            assert told["event"] == {
                "name": "recalled",
                "chatId": row["chatId"],
                "msgId": row["msgId"],
                "by": a.user_id,
            }
        for wire in (a, b):
            [stub] = [
                each
                for each in await wire.ok("history", chatId=row["chatId"])
                if each["msgId"] == row["msgId"]
            ]
            assert stub["recalled"] is True
            assert "regret" not in str(stub)
            assert (stub["fromId"], stub["type"]) == (a.user_id, "1")
            assert stub["createTime"] == row["createTime"]

    async def test_undelivered(self, dial: Dialer) -> None:
        """What the other one has not received flows as its stub, with the same seq."""
        a, b = await dial.pair()
        b.close()
        row = await a.say(b.user_id, "regret")
        await a.ok("recall", msgId=row["msgId"])
        back, started = await dial.resume(b.push_id)
        got = await back.expect_delivery(started["queued"])
        assert got[0]["msgId"] == row["msgId"]
        assert got[0]["seq"] == started["first"]
        assert got[0]["recalled"] is True
        assert "regret" not in str(got)

    async def test_unread(self, dial: Dialer) -> None:
        """A recalled message is not unread."""
        a, b = await pair(dial)
        row = await a.say(b.user_id, "regret")
        before = (await chat_of(b, row["chatId"]))["unread"]
        await a.ok("recall", msgId=row["msgId"])
        entry = await chat_of(b, row["chatId"])
        assert entry["unread"] == before - 1
        assert entry["last"]["recalled"] is True

    async def test_twice(self, dial: Dialer) -> None:
        """A second recall changes nothing and tells nobody."""
        a, b = await dial.pair()
        row = await a.say(b.user_id, "regret")
        await b.expect_delivery(ack=True)
        await a.ok("recall", msgId=row["msgId"])
        await b.expect_delivery(ack=True)
        await a.command("recall", msgId=row["msgId"])
        await b.expect_nothing()

    async def test_at_once(self, dial: Dialer) -> None:
        """Recalled by two devices in one moment: told once."""
        a, b = await dial.pair()
        again = await dial()
        await again.login(a.phone)
        for _ in range(10):
            row = await a.say(b.user_id, "regret")
            await b.expect_delivery(ack=True)
            line = {"cmd": "recall", "msgId": row["msgId"]}
            replies = await at_once((a, line), (again, line))
            assert [reply["status"] for reply in replies] == [1, 1]
            await b.expect_delivery(ack=True)
            await b.expect_nothing()
            a.pushed.clear()

    async def test_whose(self, dial: Dialer) -> None:
        """4004 for the other one's message; 4005 for one of somebody else's chat."""
        a, b = await pair(dial)
        c = await dial.user()
        row = await a.say(b.user_id, "mine")
        for cmd in ("recall", "status"):
            await failed(b, 4004, cmd, {}, "msgId", msgId=row["msgId"])
            await failed(c, 4005, cmd, {}, "msgId", msgId=row["msgId"])
        assert (await talk(b, userId=a.user_id))[-1] == "mine"

    @pytest.mark.parametrize("cmd", ["recall", "status"])
    async def test_unknown(self, dial: Dialer, cmd: str) -> None:
        """No such message: 4005; none named, or a wrong type: 4003."""
        wire = await dial.user()
        for number in ("0", "9007199254740991", "-1", "x", "9" * 30):
            await failed(wire, 4005, cmd, {}, "msgId", msgId=number)
        for none in ({}, {"msgId": None}, {"msgId": ""}, {"msgId": 5}, {"msgId": "1" * 65}):
            await failed(wire, 4003, cmd, {}, "msgId", **none)

    async def test_too_late(self, server: StartServer) -> None:
        """After `limits.recall` seconds: 4004."""
        own = server(limits_recall=0)
        a, b = await pair(own.dial)
        row = await a.say(b.user_id, "stays")
        sent = (await a.ok("history", userId=b.user_id))[-1]["time"]
        while time.time_ns() // 1_000_000 <= sent + 1:
            await a.fence()
        await failed(a, 4004, "recall", {}, "msgId", msgId=row["msgId"])
        assert (await talk(b, userId=a.user_id))[-1] == "stays"


class TestSearchMessages:
    """What is found of one's own chats."""

    @pytest.mark.parametrize(
        ("said", "words"),
        [
            ("我是中国人民的儿子", "国"),
            ("我是中国人民的儿子", "国人"),
            ("我是中国人民的儿子", "中国人民"),
            ("ÄRZTE sind da", "ärzte"),
            ("A\u0308rzte", "Ä"),
            ("Straße", "STRASSE"),
            ("İstanbul", "istanbul"),
            ("ＷＩＤＥ", "wide"),
            ("100% sure", "0% s"),
            ("a_b", "_"),
            ("a\\b", "\\"),
            ("'; --", "';"),
            ("x 😀 y", "😀"),
            ("two\nlines", "two\nlines"),
        ],
    )
    async def test_found(self, dial: Dialer, said: str, words: str) -> None:
        """Folded and literal, from any character on, for both sides."""
        a, b = await pair(dial)
        await a.say(b.user_id, "something else")
        row = await a.say(b.user_id, said)
        for wire in (a, b):
            reply = await wire.command("search_messages", text=words)
            assert_envelope(reply, "search_messages", list)
            assert reply["status"] == 1
            assert numbers(reply["result"]) == [row["msgId"]]
            assert content(reply["result"][0]) == said

    @pytest.mark.parametrize("words", ["nobody said", "%", "_", "*", "a.c", "?bc", "x" * 300])
    async def test_not_found(self, dial: Dialer, words: str) -> None:
        """An empty list with status 1: only `search` answers 0."""
        a, b = await pair(dial)
        await a.say(b.user_id, "abc")
        reply = await a.command("search_messages", text=words)
        assert_envelope(reply, "search_messages", list)
        assert (reply["status"], reply["result"]) == (1, [])

    @pytest.mark.parametrize("none", [{}, {"text": None}, {"text": ""}, {"text": 5}])
    async def test_no_text(self, dial: Dialer, none: Any) -> None:
        """Without a text, or with a wrong or too long one: 4003."""
        wire = await dial.user()
        await failed(wire, 4003, "search_messages", [], "text", **none)
        await failed(wire, 4003, "search_messages", [], "text", text="x" * 301)

    async def test_only_own_chats(self, dial: Dialer) -> None:
        """Nobody finds what others say; `chatId` narrows it to one chat."""
        a, b = await pair(dial)
        c = await dial.user()
        await make_friends(a, c)
        tag = new_tag()
        one = await a.say(b.user_id, f"1 {tag}")
        two = await c.say(a.user_id, f"2 {tag}")
        for wire, expected in ((a, [two, one]), (b, [one]), (c, [two])):
            assert numbers(await wire.ok("search_messages", text=tag)) == [
                row["msgId"] for row in expected
            ]
        chat = pair_chat(a, b)
        assert numbers(await a.ok("search_messages", text=tag, chatId=chat)) == [one["msgId"]]
        for empty in ("", None):
            assert len(await a.ok("search_messages", text=tag, chatId=empty)) == 2
        assert await a.ok("search_messages", text=tag, chatId="system") == []

    async def test_recalled(self, dial: Dialer) -> None:
        """A recalled message is never found."""
        a, b = await pair(dial)
        tag = new_tag()
        row = await a.say(b.user_id, tag)
        await a.ok("recall", msgId=row["msgId"])
        for wire in (a, b):
            assert await wire.ok("search_messages", text=tag) == []

    async def test_pages(self, dial: Dialer) -> None:
        """Newest first; by `next` each once though more is said; by number ten a page."""
        a, b = await pair(dial)
        tag = new_tag()
        sent = await say_all(a, b, [f"{tag} {n}" for n in range(25)])
        sent.reverse()
        assert numbers(await all_pages(b, "search_messages", text=tag)) == sent
        by_number = [await b.ok("search_messages", text=tag, page=page) for page in (0, 1, "2", 3)]
        assert [numbers(page) for page in by_number] == [sent[:10], sent[10:20], sent[20:], []]
        assert numbers(await b.ok("search_messages", text=tag, size=100)) == sent
        assert numbers(await b.ok("search_messages", text=tag, size=4, page=3)) == sent[12:16]
        seen: list[str] = []
        reply = await b.command("search_messages", text=tag)
        while True:
            seen += numbers(reply["result"])
            await say_all(a, b, [f"{tag} new"] * 3)
            if "next" not in reply:
                break
            reply = await b.command("search_messages", text=tag, page=reply["next"])
        assert seen == sent


class TestStatus:
    """How far one's own message has come."""

    async def test_counts(self, dial: Dialer) -> None:
        """When it was stored; devices, those that acked it, and who has read it."""
        a, b = await dial.pair()
        second = await dial.device(b)
        row = await a.say(b.user_id, "x")
        reply = await a.command("status", msgId=row["msgId"])
        assert_envelope(reply, "status", dict)
        assert set(reply["result"]) == {"stored", "devices", "delivered", "read"}
        assert reply["result"] == {
            "stored": row["createTime"],
            "devices": 2,
            "delivered": 0,
            "read": 0,
        }
        for count, wire in ((1, b), (2, second)):
            await wire.expect_delivery(ack=True)
            await wire.fence()
            assert (await a.ok("status", msgId=row["msgId"]))["delivered"] == count
        await b.read_mark(chatId=row["chatId"])
        await b.fence()
        assert (await a.ok("status", msgId=row["msgId"]))["read"] == 1

    async def test_without_devices(self, dial: Dialer) -> None:
        """Nobody has it yet when the other one has no device."""
        a, b = await pair(dial)
        row = await a.say(b.user_id, "x")
        found = await a.ok("status", msgId=row["msgId"])
        assert (found["devices"], found["delivered"], found["read"]) == (0, 0, 0)


class TestTyping:
    """Never stored, and told only to who accepts it."""

    async def test_reply(self, dial: Dialer) -> None:
        """An empty object, by chat or by user; who does not accept it gets nothing."""
        a, b = await dial.pair()
        for fields in ({"chatId": pair_chat(a, b)}, {"userId": b.user_id}):
            reply = await a.command("typing", **fields)
            assert_envelope(reply, "typing", dict)
            assert (reply["status"], reply["result"]) == (1, {})
        await b.expect_nothing()
        assert await a.ok("history", userId=b.user_id) == await b.ok("history", userId=a.user_id)

    async def test_strangers(self, dial: Dialer) -> None:
        """A stranger is not told."""
        a = await dial.user()
        b = await dial()
        await b.register()
        await b.start(accept=["typing"])
        await a.command("typing", userId=b.user_id)
        await b.expect_nothing()

    @pytest.mark.parametrize("none", [{}, {"chatId": None, "userId": ""}, {"chatId": 5}])
    async def test_nobody(self, dial: Dialer, none: Any) -> None:
        """Neither a chat nor a user, or a wrong type: 4003."""
        await failed(await dial.user(), 4003, "typing", {}, **none)


async def test_one_time_for_many(dial: Dialer) -> None:
    """Messages of one list share their time, and still each is paged once."""
    a, b = await pair(dial)
    sent = await say_all(a, b, [f"{n}" for n in range(100)])
    found = await a.ok("history", userId=b.user_id, limit=100)
    assert numbers(found) == sent
    assert len({message["time"] for message in found}) == 1
    seen: list[str] = []
    reply = await b.command("history", userId=a.user_id, limit=7)
    while True:
        seen = numbers(reply["result"]) + seen
        if "next" not in reply:
            break
        reply = await b.command("history", userId=a.user_id, limit=7, before=reply["next"])
    assert seen[-100:] == sent


async def test_deleted_places(dial: Dialer) -> None:
    """A recalled message is a place as before."""
    a, b = await pair(dial)
    sent = await say_all(a, b, ["1", "2", "3"])
    await a.ok("recall", msgId=sent[1])
    assert numbers(await b.ok("history", userId=a.user_id, after=sent[1])) == [sent[2]]
    assert numbers(await b.ok("history", userId=a.user_id, before=sent[1], limit=1)) == [sent[0]]


async def test_chat_users_are_seen_as_usual(dial: Dialer) -> None:
    """In `chats` the phone of a former friend is hidden like everywhere."""
    a, b = await pair(dial)
    await a.say(b.user_id, "x")
    await b.ok("delete_friend", userId=a.user_id)
    entry = await chat_of(a, pair_chat(a, b))
    assert (entry["user"]["phone"], entry["user"]["isFriend"]) == ("", False)
    assert ids([entry]) == [b.user_id]
