"""Section 2.3, delivery: packets, the window, the queue's limit, order, and what flows again."""

import asyncio
import json
import random

import pytest

from .process import Process, StartServer
from .wire import Dialer, Frame, Wire, befriend, content, frame, lines, pair_chat, text

PACKET = 65_536
WINDOW = 256
WINDOW_BYTES = 1_048_576


def place(message: Frame) -> int:
    """Return where a message begins in the queue: its seq, or a gap's seqFrom."""
    event = message.get("event", {})
    begin = event["seqFrom"] if event.get("name") == "gap" else message["seq"]
    assert isinstance(begin, int)
    assert begin <= message["seq"]
    return begin


def assert_contiguous(messages: list[Frame], last: int) -> None:
    """Require that each message's place is the seq before it + 1, beginning after `last`."""
    for message in messages:
        assert place(message) == last + 1, f"a hole after {last}: {message}"
        last = message["seq"]


def numbers(messages: list[Frame]) -> list[str]:
    """Return the texts of delivered messages."""
    return [content(each) for each in messages]


async def fill(a: Wire, b: Wire, count: int, words: str = "") -> list[str]:
    """Send `count` numbered texts in lists of 100 and return their msgIds."""
    texts = [text(b.user_id, f"{n}{words}") for n in range(count)]
    found: list[str] = []
    for at in range(0, count, 100):
        found += [row["msgId"] for row in await a.post(*texts[at : at + 100])]
    return found


async def in_flight(wire: Wire) -> list[list[Frame]]:
    """Return the packets that come without an ack, up to the stop."""
    packets = []
    while True:
        try:
            packets.append((await wire.packet(0.5))["message"])
        except TimeoutError:
            return packets


class TestPackets:
    """A pushed line is at most 64 KiB, unless one message alone is larger."""

    @pytest.mark.parametrize("size", [1, 100, 1_000, 9_000])
    async def test_size(self, dial: Dialer, size: int) -> None:
        """Waiting messages are joined to packets of at most 64 KiB, none lost at the seams."""
        a, b = await dial.pair()
        b.close()
        count = min(200, 400_000 // size)
        sent = await fill(a, b, count, "x" * size)
        again, _ = await dial.resume(b.push_id)
        got: list[Frame] = []
        while len(got) < count:
            line = await again.recv_line()
            assert len(line) <= PACKET
            got += json.loads(line)["message"]
            await again.ack()
        assert [each["msgId"] for each in got] == sent

    @pytest.mark.slow
    async def test_size_counts_bytes(self, dial: Dialer) -> None:
        """Bytes count, not characters, and escapes count as they are sent."""
        a, b = await dial.pair()
        b.close()
        for character in ("😀", "\u2028", "密", '"'):
            await a.post(*(text(b.user_id, character * 1_500) for _ in range(30)))
        again, _ = await dial.resume(b.push_id)
        got: list[Frame] = []
        while len(got) < 120:
            line = await again.recv_line()
            assert len(line) <= PACKET
            got += json.loads(line)["message"]
            await again.ack()
        assert len(got) == 120

    @pytest.mark.slow
    async def test_one_large_message(self, dial: Dialer) -> None:
        """A message that is larger alone comes alone, and whole."""
        a, b = await dial.pair()
        b.close()
        info = [{"category": "0", "content": "😀" * 10_000}] * 3
        await a.post(text(b.user_id, "small"), text(b.user_id, "", info=info))
        await a.say(b.user_id, "small")
        again, _ = await dial.resume(b.push_id)
        sizes: list[int] = []
        while sum(sizes) < 3:
            packet = (await again.packet())["message"]
            sizes.append(len(packet))
        assert sizes == [1, 1, 1]

    @pytest.mark.slow
    async def test_larger_than_the_window(self, dial: Dialer) -> None:
        """One message always fits the window, though its escapes make it larger than 1 MiB."""
        a, b = await dial.pair()
        info = [{"category": "0", "content": "\u2028" * 10_000}] * 20
        await a.post(text(b.user_id, "before"), text(b.user_id, "", info=info))
        await a.say(b.user_id, "behind")
        got = await b.take(3)
        assert len(json.dumps(got[1])) > WINDOW_BYTES
        assert got[1]["info"] == info
        assert content(got[2]) == "behind"


class TestWindow:
    """At most 256 messages or 1 MiB are in flight to a device without acks."""

    @pytest.mark.slow
    async def test_messages(self, dial: Dialer) -> None:
        """256 messages flow without an ack, and not one more."""
        a, b = await dial.pair()
        b.close()
        await fill(a, b, 400)
        again, reply = await dial.resume(b.push_id)
        assert reply["queued"] == 400
        packets = await in_flight(again)
        assert sum(len(each) for each in packets) == WINDOW
        for _ in packets:
            await again.ack()
        got = await again.expect_delivery(400 - WINDOW)
        assert numbers(got) == [f"{n}" for n in range(WINDOW, 400)]

    @pytest.mark.slow
    async def test_live_messages_count_too(self, dial: Dialer) -> None:
        """The window is the same for messages that arrive while the device is there."""
        a, b = await dial.pair()
        await fill(a, b, 300)
        packets = await in_flight(b)
        assert sum(len(each) for each in packets) == WINDOW
        await b.ack(packets[-1][-1]["seq"])
        got = await b.expect_delivery(300 - WINDOW)
        assert numbers(got) == [f"{n}" for n in range(WINDOW, 300)]

    @pytest.mark.slow
    async def test_bytes(self, dial: Dialer) -> None:
        """No more than 1 MiB flows without an ack, and more only after one."""
        a, b = await dial.pair()
        b.close()
        for _ in range(3):
            await a.post(*(text(b.user_id, "x" * 10_000) for _ in range(60)))
        again, _ = await dial.resume(b.push_id)
        packets = await in_flight(again)
        count = sum(len(each) for each in packets)
        assert WINDOW_BYTES - 3 * PACKET <= count * 10_000 <= WINDOW_BYTES
        await again.ack()
        more = await in_flight(again)
        assert 0 < sum(len(each) for each in more) <= len(packets[0]) + 1
        await again.ack(more[-1][-1]["seq"])
        await again.take(180 - count - sum(len(each) for each in more))

    async def test_a_window_for_each_device(self, dial: Dialer) -> None:
        """A device that does not ack holds up neither the account's others nor anybody else."""
        a, b = await dial.pair()
        second = await dial.device(b)
        await fill(a, b, 300)
        got = await second.take(300)
        assert numbers(got) == [f"{n}" for n in range(300)]
        await b.ok("whoami")

    @pytest.mark.slow
    async def test_a_reader_that_stopped_delays_nobody(self, dial: Dialer) -> None:
        """A device that never reads delays neither its sender nor others."""
        a, b = await dial.pair()
        b.close()
        await fill(a, b, 300, "x" * 3_000)
        stuck = await dial(receive_buffer=2048)
        await stuck.send_line(frame("restart", b.push_id))
        c, d = await dial.pair()
        for n in range(50):
            await a.say(b.user_id, f"more {n}")
            await c.say(d.user_id, f"{n}")
            [quick] = await d.expect_delivery(ack=True)
            assert content(quick) == f"{n}"
        stuck.abort()
        again, reply = await dial.resume(b.push_id)
        got = await again.take(reply["queued"])
        assert len(got) == 350
        assert_contiguous(got, reply["first"] - 1)


class TestOrder:
    """Within a chat by msgId, a sender's messages in its order, seq without holes."""

    async def test_first_seq_is_1(self, dial: Dialer) -> None:
        """The first seq of a device is 1, and it has no holes over all its chats."""
        b = await dial.user(started=True)
        senders = []
        for _ in range(3):
            a = await dial.user()
            await a.ok("add_friend", userId=b.user_id)
            await b.ok("accept_friend", userId=a.user_id)
            senders.append(a)
        for n in range(30):
            await senders[n % 3].say(b.user_id, f"{n}")
        got = await b.take(33)
        assert [each["seq"] for each in got] == list(range(1, 34))

    @pytest.mark.slow
    async def test_many_senders_at_once(self, dial: Dialer) -> None:
        """Many senders at once: contiguous seq, rising msgIds, each sender's own order."""
        b = await dial.user()
        senders = [await dial.user() for _ in range(8)]
        for each in senders:
            await befriend(each, b)
        first = await dial.device(b)
        waiting = await first.drain(8)
        second = await dial.device(b)

        async def send_all(sender: Wire) -> None:
            for n in range(0, 40, 2):
                await sender.post(text(b.user_id, f"{n}"), text(b.user_id, f"{n + 1}"))

        results = await asyncio.gather(
            first.take(320), second.take(320), *(send_all(each) for each in senders)
        )
        one, other = results[0], results[1]
        assert one is not None
        assert other is not None
        assert_contiguous(one, waiting[-1]["seq"])
        assert_contiguous(other, 0)
        assert len({each["msgId"] for each in one}) == 320
        for sender in senders:
            for seen in (one, other):
                mine = [each for each in seen if each["fromId"] == sender.user_id]
                assert numbers(mine) == [f"{n}" for n in range(40)]
                ids = [int(each["msgId"]) for each in mine]
                assert ids == sorted(ids)

    @pytest.mark.slow
    async def test_live_never_overtakes_waiting(self, dial: Dialer) -> None:
        """Messages that arrive during a replay come behind what waited, once each."""
        b = await dial.user()
        senders = [await dial.user() for _ in range(3)]
        for each in senders:
            await befriend(each, b)
        device = await dial.device(b)
        await device.drain(3)
        device.close()
        for each in senders:
            await fill(each, b, 200)
        wire, reply = await dial.resume(device.push_id)
        assert reply["queued"] == 600

        async def send_more(sender: Wire) -> None:
            for n in range(200, 240):
                await sender.say(b.user_id, f"{n}")

        got, *_ = await asyncio.gather(wire.take(720), *(send_more(each) for each in senders))
        assert got is not None
        assert_contiguous(got, reply["first"] - 1)
        assert len({each["msgId"] for each in got}) == 720
        for sender in senders:
            mine = [each for each in got if each["fromId"] == sender.user_id]
            assert numbers(mine) == [f"{n}" for n in range(240)]

    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.slow
    async def test_replay_broken_at_random_points(self, dial: Dialer, seed: int) -> None:
        """Breaks in a replay with live senders: unacked again, in order, none lost."""
        rng = random.Random(seed)
        a, b = await dial.pair()
        sent = await fill(a, b, 150)
        wire = b
        acked: list[Frame] = []
        more = asyncio.create_task(fill(a, b, 150))
        for _ in range(8):
            wire.abort() if rng.random() < 0.5 else wire.close()
            wire, reply = await dial.resume(b.push_id)
            for _ in range(rng.randrange(0, 4)):
                if len(acked) < 300:
                    packet = (await wire.packet())["message"]
                    await wire.ack()
                    acked += packet
            await wire.fence()
            wire.pushed.clear()
        sent += await more
        wire, reply = await dial.resume(b.push_id)
        acked += await wire.take(reply["queued"])
        assert [each["msgId"] for each in acked] == sent
        assert_contiguous(acked, acked[0]["seq"] - 1)

    async def test_pipelined_lists(self, dial: Dialer) -> None:
        """Lists pipelined without waiting for their replies arrive in their order."""
        a, b = await dial.pair()
        count = 500
        await a.send_raw(lines(*(frame([text(b.user_id, f"{n}")], id=n) for n in range(count))))
        got = await b.take(count)
        assert numbers(got) == [f"{n}" for n in range(count)]
        assert [(await a.reply())["id"] for _ in range(count)] == list(range(count))

    async def test_delivered_no_later_than_confirmed(self, dial: Dialer) -> None:
        """What is confirmed is already on its way to a device that is up to date."""
        a, b = await dial.pair()
        for n in range(20):
            await a.say(b.user_id, f"{n}")
            await b.fence()
            [packet] = b.pushed
            assert content(packet["message"][0]) == f"{n}"
            b.pushed.clear()
            await b.ack()


def small_queue(server: StartServer, limit: int = 10) -> Process:
    """Start a server whose queues hold few messages."""
    return server(queue_messages=limit)


class TestFullQueue:
    """A full queue takes no more: one gap collects what is missing; no sender is refused."""

    async def test_gap(self, server: StartServer) -> None:
        """The first 10 and one gap; `after` passed to `history` gives the rest."""
        dial = small_queue(server).dial
        a, b = await dial.pair()
        away, reply = await dial.resume(b.push_id)
        last = reply["last"]
        away.close()
        sent = await fill(a, b, 15)
        again, reply = await dial.resume(b.push_id)
        got = await again.expect_delivery(11)
        assert_contiguous(got, last)
        assert [each["msgId"] for each in got[:10]] == sent[:10]
        gap = got[10]
        assert (gap["type"], gap["fromId"], gap["chatId"]) == ("0", "", "system")
        assert gap["event"]["name"] == "gap"
        assert gap["event"]["seqFrom"] == got[9]["seq"] + 1
        assert gap["seq"] == reply["last"]
        assert content(gap)
        [missing] = gap["event"]["chats"]
        assert missing["chatId"] == pair_chat(a, b)
        rest = await again.ok("history", limit=100, **missing)
        assert [each["msgId"] for each in rest] == sent[10:]
        assert not gap["event"].get("more")

    async def test_seq_goes_on_behind_a_gap(self, server: StartServer) -> None:
        """The next message's seq is the gap's + 1, also when it arrives before the ack."""
        dial = small_queue(server).dial
        a, b = await dial.pair()
        b.close()
        await fill(a, b, 15)
        again, reply = await dial.resume(b.push_id)
        got = await again.expect_delivery(11, ack=True)
        await again.fence()
        await a.say(b.user_id, "behind")
        [behind] = await again.expect_delivery(ack=True)
        assert_contiguous([*got, behind], reply["first"] - 1)
        assert content(behind) == "behind"

    async def test_a_gap_stays_until_it_is_acked(self, server: StartServer) -> None:
        """A gap flows again like any message, with the same seq and content."""
        dial = small_queue(server).dial
        a, b = await dial.pair()
        b.close()
        await fill(a, b, 12)
        again, _ = await dial.resume(b.push_id)
        first = await again.expect_delivery(11)
        await again.ack(first[9]["seq"])
        await again.fence()
        third, reply = await dial.resume(b.push_id)
        assert reply["queued"] == 1
        assert await third.expect_delivery(1) == first[10:]

    async def test_missing_after_a_sent_gap(self, server: StartServer) -> None:
        """What is missing after a gap was sent goes to another gap, with its own `after`."""
        dial = small_queue(server).dial
        a, b = await dial.pair()
        b.close()
        sent = await fill(a, b, 15)
        again, reply = await dial.resume(b.push_id)
        got = await again.expect_delivery(11)
        sent += await fill(a, b, 15)
        await again.ack(got[-1]["seq"])
        await again.fence()
        await a.say(b.user_id, "behind")
        while content(got[-1]) != "behind":
            got += (await again.packet())["message"]
            await again.ack()
        assert_contiguous(got, reply["first"] - 1)
        seen = {each["msgId"] for each in got if "event" not in each}
        for each in got:
            for missing in each.get("event", {}).get("chats", []):
                rest = await again.ok("history", limit=100, **missing)
                seen |= {shown["msgId"] for shown in rest}
        assert seen >= set(sent)

    async def test_several_chats(self, server: StartServer) -> None:
        """A gap names each chat in which something is missing, and where to read on."""
        dial = small_queue(server).dial
        b = await dial.user()
        senders = [await dial.user() for _ in range(3)]
        for each in senders:
            await befriend(each, b)
        device = await dial.device(b)
        await device.drain(3)
        device.close()
        await fill(senders[0], b, 11)
        await fill(senders[1], b, 2)
        again, _ = await dial.resume(device.push_id)
        *_, gap = await again.expect_delivery(11)
        chats = {each["chatId"]: each["after"] for each in gap["event"]["chats"]}
        assert set(chats) == {pair_chat(senders[0], b), pair_chat(senders[1], b)}
        for sender, count in ((senders[0], 1), (senders[1], 2)):
            chat = pair_chat(sender, b)
            rest = await again.ok("history", chatId=chat, after=chats[chat])
            assert len([each for each in rest if each["type"] == "1"]) == count

    async def test_a_list_across_the_limit(self, server: StartServer) -> None:
        """A list that fits only in part is confirmed whole."""
        dial = small_queue(server, 100).dial
        a, b = await dial.pair()
        b.close()
        sent = await fill(a, b, 50)
        rows = await a.post(*(text(b.user_id, f"list {n}") for n in range(60)))
        sent += [row["msgId"] for row in rows]
        again, _ = await dial.resume(b.push_id)
        got = await again.take(101)
        assert [each["msgId"] for each in got[:100]] == sent[:100]
        [missing] = got[100]["event"]["chats"]
        rest = await again.ok("history", limit=100, **missing)
        assert [each["msgId"] for each in rest] == sent[100:]

    async def test_other_devices_are_not_disturbed(self, server: StartServer) -> None:
        """A full queue of one device takes nothing from the account's other devices."""
        dial = small_queue(server).dial
        a, b = await dial.pair()
        second = await dial.device(b)
        b.close()
        for n in range(30):
            await a.say(b.user_id, f"{n}")
            [got] = await second.expect_delivery(ack=True)
            assert (content(got), got["seq"]) == (f"{n}", n + 1)
            await second.fence()

    async def test_acks_make_room(self, server: StartServer) -> None:
        """A device that acks is never full, however much it gets."""
        dial = small_queue(server).dial
        a, b = await dial.pair()
        for n in range(35):
            await a.say(b.user_id, f"{n}")
            [got] = await b.expect_delivery(ack=True)
            assert content(got) == f"{n}"
            await b.fence()

    async def test_the_waiting_line(self, server: StartServer) -> None:
        """The limit holds for the line of an account without a device too."""
        dial = small_queue(server).dial
        a, b = await dial.user(started=True), await dial.user()
        await befriend(a, b)
        sent = await fill(a, b, 20)
        reply = await b.start()
        got = await b.expect_delivery(11)
        assert_contiguous(got, 0)
        assert reply["last"] == got[-1]["seq"]
        gap = got[-1]
        assert gap["event"]["name"] == "gap"
        seen = [each["msgId"] for each in got[:-1]]
        [missing] = gap["event"]["chats"]
        rest = await b.ok("history", limit=100, **missing)
        assert (seen + [each["msgId"] for each in rest])[-20:] == sent

    async def test_a_gap_survives_a_crash(self, server: StartServer) -> None:
        """A gap is as durable as a message."""
        own = small_queue(server)
        a, b = await own.dial.pair()
        b.close()
        sent = await fill(a, b, 15)
        own.restart()
        again, reply = await own.dial.resume(b.push_id)
        got = await again.expect_delivery(11)
        assert_contiguous(got, reply["first"] - 1)
        [missing] = got[-1]["event"]["chats"]
        rest = await again.ok("history", limit=100, **missing)
        assert [each["msgId"] for each in rest] == sent[10:]


class TestRecalled:
    """An undelivered message that was recalled flows as its stub with the same seq."""

    async def test_stub(self, dial: Dialer) -> None:
        """The stub has the message's place and number, and none of its content."""
        a, b = await dial.pair()
        b.close()
        row = await a.say(b.user_id, "secret")
        await a.say(b.user_id, "other")
        await a.ok("recall", msgId=row["msgId"])
        again, reply = await dial.resume(b.push_id)
        got = await again.expect_delivery(3)
        assert_contiguous(got, reply["first"] - 1)
        assert got[0]["msgId"] == row["msgId"]
        assert got[0]["recalled"] is True
        assert content(got[1]) == "other"
        assert got[2]["event"] == {
            "name": "recalled",
            "chatId": pair_chat(a, b),
            "msgId": row["msgId"],
            "by": a.user_id,
        }
        assert "secret" not in str(got)


class TestBiteAtOnce:
    """After the reply of `block` and its like nothing of that person enters."""

    async def test_block(self, dial: Dialer) -> None:
        """What was confirmed before stays delivered; nothing comes in after the reply."""
        a, b = await dial.pair()
        stop = asyncio.Event()
        confirmed: list[str] = []

        async def keep_sending() -> None:
            while not stop.is_set():
                reply = await a.send([text(b.user_id, "x")])
                if reply["status"] == 1:
                    confirmed.append(reply["result"][0]["msgId"])
                else:
                    assert reply["status"] == 4004

        sender = asyncio.create_task(keep_sending())
        second = await dial()
        await second.login(b.phone)
        received: list[Frame] = []
        while len(received) < 20:
            received += (await b.packet())["message"]
            await b.ack()
        await second.ok("block", userId=a.user_id)
        seen = await second.ok("history", userId=a.user_id, limit=100)
        await second.ok("ping")
        again = await second.ok("history", userId=a.user_id, limit=100)
        stop.set()
        await sender
        assert [each["msgId"] for each in again] == [each["msgId"] for each in seen]
        mine = [each["msgId"] for each in again if each["type"] == "1"]
        assert mine[-1] == confirmed[-1]
        received += await b.take(len(confirmed) - len(received))
        assert [each["msgId"] for each in received] == confirmed
        await b.expect_nothing()
