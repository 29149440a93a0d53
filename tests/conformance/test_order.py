"""Ids and pages: `msgId` orders, and `history` pages by it."""

import asyncio
import json

import pytest

from .process import StartServer
from .wire import Dialer, Frame, Wire, pair_chat, text


def ids(messages: list[Frame]) -> list[str]:
    """Return the msgIds of messages."""
    return [each["msgId"] for each in messages]


async def post_same_second(a: Wire, b: Wire, count: int) -> list[str]:
    """Send so many messages at once, all with one `createTime`, and return their msgIds."""
    texts = [text(b.user_id, f"{n}", createTime="2024-05-01T10:00:00") for n in range(count)]
    return [row["msgId"] for row in await a.post(*texts)]


class TestPaging:
    """`history` shows each message once, in msgId order, whatever happens meanwhile."""

    async def test_backwards_while_new_ones_arrive(self, dial: Dialer) -> None:
        """Pages backwards by `before`: each of 45 once though 3 new ones arrive per page."""
        a, b = await dial.pair()
        sent = await post_same_second(a, b, 45)
        seen: list[str] = []
        page = await a.ok("history", userId=b.user_id, limit=10)
        while page:
            seen = ids(page) + seen
            await a.post(*(text(b.user_id, "new") for _ in range(3)))
            page = await a.ok("history", userId=b.user_id, limit=10, before=seen[0])
        assert seen[-45:] == sent
        assert [int(each) for each in seen] == sorted({int(each) for each in seen})

    async def test_forwards(self, dial: Dialer) -> None:
        """Pages forwards by `after` meet the new ones at the end."""
        a, b = await dial.pair()
        start = (await a.say(b.user_id, "start"))["msgId"]
        sent = await post_same_second(a, b, 25)
        seen: list[str] = []
        new = 0
        while page := await a.ok(
            "history", chatId=pair_chat(a, b), limit=10, after=seen[-1] if seen else start
        ):
            seen += ids(page)
            if new < 6:
                sent += await post_same_second(a, b, 3)
                new += 3
        assert seen == sent

    async def test_next(self, dial: Dialer) -> None:
        """`next` is there while there is more, and is passed back as it is."""
        a, b = await dial.pair()
        sent = await post_same_second(a, b, 25)
        start = sent[0]
        reply = await a.command("history", userId=b.user_id, limit=10, after=start)
        seen = ids(reply["result"])
        while "next" in reply:
            assert isinstance(reply["next"], str)
            reply = await a.command("history", userId=b.user_id, limit=10, after=reply["next"])
            seen += ids(reply["result"])
        assert seen == sent[1:]
        reply = await a.command("history", userId=b.user_id, limit=10)
        seen = ids(reply["result"])
        while "next" in reply:
            reply = await a.command("history", userId=b.user_id, limit=10, before=reply["next"])
            seen = ids(reply["result"]) + seen
        assert seen[-25:] == sent

    async def test_newest_first_page_oldest_first(self, dial: Dialer) -> None:
        """Without `before` and `after` the newest are shown, oldest first; both are exclusive."""
        a, b = await dial.pair()
        sent = await post_same_second(a, b, 12)
        assert ids(await a.ok("history", userId=b.user_id, limit=5)) == sent[-5:]
        older = await a.ok("history", userId=b.user_id, limit=5, before=sent[-5])
        assert ids(older) == sent[-10:-5]
        newer = await a.ok("history", userId=b.user_id, limit=5, after=sent[3])
        assert ids(newer) == sent[4:9]
        assert await a.ok("history", userId=b.user_id, after=sent[-1]) == []

    @pytest.mark.parametrize(
        ("name", "bad"),
        [
            ("limit", 0),
            ("limit", -1),
            ("limit", 101),
            ("limit", "many"),
            ("limit", 1.5),
            ("before", "x"),
            ("before", -1),
            ("after", []),
            ("after", "1.5"),
        ],
    )
    async def test_bad_values(self, dial: Dialer, name: str, bad: object) -> None:
        """Bad values: 4003 with `field`."""
        a, b = await dial.pair()
        reply = await a.refused(4003, {"cmd": "history", "userId": b.user_id, name: bad})
        assert reply["field"] == name
        assert reply["result"] == []

    async def test_both_at_once(self, dial: Dialer) -> None:
        """`before` and `after` together: 4003."""
        a, b = await dial.pair()
        await a.refused(4003, {"cmd": "history", "userId": b.user_id, "before": "9", "after": "1"})

    @pytest.mark.slow
    async def test_a_reply_holds_1_mib(self, dial: Dialer) -> None:
        """A reply line holds at most 1 MiB: a list of long messages ends early with `next`."""
        a, b = await dial.pair()
        words = "😀" * 10_000
        sent = []
        for _ in range(4):
            sent += [row["msgId"] for row in await a.post(*(text(b.user_id, words),) * 15)]
        for name, place in (("after", str(int(sent[0]) - 1)), ("before", "9007199254740991")):
            seen: list[str] = []
            pages = 0
            while place:
                request = {"cmd": "history", "userId": b.user_id, "limit": 60, name: place}
                await a.send_line(request)
                line = await a.recv_line()
                assert len(line) <= 1_048_576
                reply = json.loads(line)
                page = ids(reply["result"])
                assert page
                seen = seen + page if name == "after" else page + seen
                place = reply.get("next", "")
                pages += 1
            assert seen[-60:] == sent
            assert 3 <= pages <= 6

    async def test_any_msg_id_is_a_place(self, dial: Dialer) -> None:
        """`before` and `after` are places: a msgId of another chat or the future does no harm."""
        a, b = await dial.pair()
        sent = await post_same_second(a, b, 3)
        c, d = await dial.pair()
        foreign = (await c.say(d.user_id, "elsewhere"))["msgId"]
        for place in (foreign, "9007199254740991"):
            assert ids(await a.ok("history", userId=b.user_id, before=place))[-3:] == sent
            assert await a.ok("history", userId=b.user_id, after=place) == []

    async def test_a_foreign_chat(self, dial: Dialer) -> None:
        """A chat of others, or none at all: 4004 or 4005, and never its messages."""
        a, b = await dial.pair()
        await a.say(b.user_id, "secret")
        stranger = await dial.user()
        for chat in (pair_chat(a, b), "1-2", "nothing", "10001", "-"):
            reply = await stranger.command("history", chatId=chat)
            assert reply["status"] in (4004, 4005), reply
            assert reply["result"] == []

    @pytest.mark.parametrize("page", [-1, "x", 1.5, [], "-1", 2**53])
    async def test_bad_pages(self, dial: Dialer, page: object) -> None:
        """Bad pages: 4003 with `field`."""
        wire = await dial.user()
        for cmd in ("friends", "chats"):
            reply = await wire.refused(4003, {"cmd": cmd, "page": page})
            assert reply["field"] == "page"

    async def test_pages(self, dial: Dialer) -> None:
        """Page 0 is the first, a page behind the last is empty, a number may be a string."""
        a, b = await dial.pair()
        [friend] = await a.ok("friends", page=0)
        assert friend["id"] == b.user_id
        assert await a.ok("friends", page="0") == [friend]
        assert await a.ok("friends") == [friend]
        for page in (1, 2, 99, "1"):
            assert await a.ok("friends", page=page) == []


class TestIds:
    """`msgId` rises over all chats and restarts; commits and visibility are one step."""

    async def test_history_never_shows_a_later_one_first(self, dial: Dialer) -> None:
        """While many send, a reader that pages by `after` misses nothing."""
        a, b = await dial.pair()
        second = await dial.device(a)
        reader = await dial()
        await reader.login(b.phone)
        first = (await a.say(b.user_id, "start"))["msgId"]
        done = asyncio.Event()

        async def send_all(wire: Wire) -> list[str]:
            return [(await wire.say(b.user_id, "x"))["msgId"] for _ in range(80)]

        async def read_all() -> list[str]:
            seen = [first]
            while True:
                finished = done.is_set()
                page = await reader.ok("history", userId=a.user_id, after=seen[-1], limit=7)
                seen += ids(page)
                if finished and not page:
                    return seen[1:]

        reading = asyncio.create_task(read_all())
        one, other = await asyncio.gather(send_all(a), send_all(second))
        done.set()
        seen = await reading
        assert set(seen) == set(one) | set(other)
        assert [int(each) for each in seen] == sorted({int(each) for each in seen})

    async def test_rising_over_a_restart(self, server: StartServer) -> None:
        """After a crash msgIds go on rising, users' ids too."""
        own = server()
        a, b = await own.dial.pair()
        before = await a.say(b.user_id, "x")
        own.restart()
        again, _ = await own.dial.resume(a.push_id)
        after = await again.say(b.user_id, "y")
        assert int(after["msgId"]) > int(before["msgId"])
        new = await own.dial.user()
        assert int(new.user_id) > max(int(a.user_id), int(b.user_id))
