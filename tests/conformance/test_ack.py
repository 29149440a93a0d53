"""Sections 2.2 to 2.4, acks: what leaves a queue, what has been read, and who is told."""

import random

import pytest

from .people import limited
from .process import StartServer
from .wire import Dialer, Frame, Wire, befriend, content, frame, pair_chat, text

ACCEPT = ["ack", "typing", "presence"]


async def queued(dial: Dialer, push_id: str) -> int:
    """Take a device up again and return how many messages wait for it."""
    wire, reply = await dial.resume(push_id)
    wire.close()
    found = reply["queued"]
    assert isinstance(found, int)
    return found


async def packets(a: Wire, b: Wire, count: int) -> list[Frame]:
    """Deliver `count` messages in packets of their own and return them, not acked."""
    found = []
    for n in range(count):
        await a.say(b.user_id, f"{n}")
        found += await b.expect_delivery()
    return found


class TestQueueAcks:
    """A message stays in a device's queue until that device acks it."""

    async def test_no_answer_ever(self, dial: Dialer) -> None:
        """`"ok"` has no reply, whatever state the connection is in."""
        wire = await dial()
        for line in (frame("ok"), frame("ok", seq=5), frame("ok", id=7)):
            await wire.send_line(line)
        await wire.expect_nothing()
        await wire.register()
        await wire.send_line(frame("ok", seq=1))
        await wire.expect_nothing()
        await wire.start()
        await wire.send_line(frame("ok", wire.push_id, id=9))
        assert (await wire.command("ping", id="next"))["id"] == "next"

    async def test_one_ok_acks_one_packet(self, dial: Dialer) -> None:
        """One `"ok"` acks the oldest packet of this connection that is not yet acked."""
        a, b = await dial.pair()
        await packets(a, b, 5)
        for left in (4, 3, 2, 1, 0):
            await b.ack()
            await b.fence()
            shown = (await a.ok("history", userId=b.user_id, limit=1))[0]
            status = await a.ok("status", msgId=shown["msgId"])
            assert bool(status["delivered"]) == (left == 0)
        assert await queued(dial, b.push_id) == 0

    async def test_a_packet_of_several_is_acked_whole(self, dial: Dialer) -> None:
        """`"ok"` without seq acks all messages of its packet."""
        a, b = await dial.pair()
        await a.post(*(text(b.user_id, f"{n}") for n in range(5)))
        first = (await b.packet())["message"]
        got = list(first)
        while len(got) < 5:
            got += (await b.packet())["message"]
        await b.ack()
        await b.fence()
        again, reply = await dial.resume(b.push_id)
        assert reply["queued"] == 5 - len(first)
        assert await again.expect_delivery(reply["queued"]) == got[len(first) :]

    async def test_seq_acks_all_up_to_it(self, dial: Dialer) -> None:
        """`"ok"` with `seq` acks all up to that, in the middle of a packet too."""
        a, b = await dial.pair()
        await a.post(*(text(b.user_id, f"{n}") for n in range(10)))
        got = await b.expect_delivery(10)
        await b.ack(got[3]["seq"])
        await b.fence()
        again, reply = await dial.resume(b.push_id)
        assert (reply["queued"], reply["first"]) == (6, got[4]["seq"])
        assert await again.expect_delivery(6) == got[4:]

    async def test_ok_after_a_seq_inside_a_packet(self, dial: Dialer) -> None:
        """A packet that was acked in part is still the oldest: the next `"ok"` acks its rest."""
        a, b = await dial.pair()
        await a.post(*(text(b.user_id, f"{n}") for n in range(6)))
        b.close()
        wire, _ = await dial.resume(b.push_id)
        first = (await wire.packet())["message"]
        assert len(first) == 6, "what waits is joined to one packet"
        await wire.ack(first[2]["seq"])
        await wire.ack()
        await wire.fence()
        assert await queued(dial, b.push_id) == 0

    async def test_seq_over_several_packets(self, dial: Dialer) -> None:
        """A seq acks several packets at once; the next `"ok"` acks the one behind them."""
        a, b = await dial.pair()
        got = await packets(a, b, 6)
        await b.ack(got[2]["seq"])
        await b.ack()
        await b.fence()
        again, reply = await dial.resume(b.push_id)
        assert reply["queued"] == 2
        assert await again.expect_delivery(2) == got[4:]

    async def test_stale(self, dial: Dialer) -> None:
        """A stale ack acks nothing: not the oldest packet, and nothing back again."""
        a, b = await dial.pair()
        got = await packets(a, b, 4)
        await b.ack(got[1]["seq"])
        for stale in (got[1]["seq"], got[0]["seq"], 1, 0):
            await b.ack(stale)
        await b.fence()
        again, reply = await dial.resume(b.push_id)
        assert reply["queued"] == 2
        assert await again.expect_delivery(2) == got[2:]

    @pytest.mark.parametrize("high", [1, 1_000_000, 2**53 - 100])
    async def test_too_high(self, dial: Dialer, high: int) -> None:
        """A too high ack acks at most what was sent on this connection."""
        a, b = await dial.pair()
        got = await packets(a, b, 3)
        await b.ack(got[-1]["seq"] + high)
        await b.fence()
        await a.say(b.user_id, "later")
        [later] = await b.expect_delivery()
        again, reply = await dial.resume(b.push_id)
        assert reply["queued"] == 1
        assert await again.expect_delivery() == [later]

    async def test_superfluous(self, dial: Dialer) -> None:
        """Superfluous acks ack nothing that comes after them."""
        a, b = await dial.pair()
        for _ in range(20):
            await b.ack()
        await b.fence()
        got = await packets(a, b, 2)
        again, reply = await dial.resume(b.push_id)
        assert reply["queued"] == 2
        assert await again.expect_delivery(2) == got

    async def test_only_what_this_connection_was_sent(self, dial: Dialer) -> None:
        """Acks on a connection that was sent nothing ack nothing, old seqs neither."""
        a, b = await dial.pair()
        got = await packets(a, b, 3)
        b.close()
        plain = await dial()
        await plain.login(b.phone)
        await plain.ack()
        await plain.ack(got[-1]["seq"])
        await plain.fence()
        assert await queued(dial, b.push_id) == 3

    @pytest.mark.slow
    async def test_acks_beyond_the_window(self, dial: Dialer) -> None:
        """A too high ack takes nothing that is still waiting behind the window."""
        a, b = await dial.pair()
        b.close()
        for _ in range(4):
            await a.post(*(text(b.user_id, "x") for _ in range(100)))
        wire, reply = await dial.resume(b.push_id)
        first = await wire.expect_delivery(256)
        await wire.ack(reply["last"] + 1000)
        second = await wire.expect_delivery(144)
        assert second[0]["seq"] == first[-1]["seq"] + 1
        await wire.fence()
        assert await queued(dial, b.push_id) == 144

    async def test_another_devices_ack(self, dial: Dialer) -> None:
        """Each device acks for itself."""
        a, b = await dial.pair()
        second = await dial.device(b)
        await a.say(b.user_id, "x")
        await second.expect_delivery(ack=True)
        await second.fence()
        assert await queued(dial, second.push_id) == 0
        assert await queued(dial, b.push_id) == 1

    @pytest.mark.parametrize("end", ["close", "abort", "vanish"])
    @pytest.mark.parametrize(("read", "acked"), [(0, 0), (1, 1), (17, 5), (30, 5), (30, 30)])
    async def test_after_a_break(self, dial: Dialer, read: int, acked: int, end: str) -> None:
        """After any kind of break exactly the unacked ones come again, the same in order."""
        a, b = await dial.pair()
        b.close()
        sent = await a.post(*(text(b.user_id, f"{n}" + "x" * 9_000) for n in range(30)))
        wire, reply = await dial.resume(b.push_id)
        got: list[Frame] = []
        while len(got) < read:
            got += (await wire.packet())["message"]
        if acked:
            await wire.ack(reply["first"] + acked - 1)
        await wire.fence()
        try:
            getattr(wire, end)()
        except PermissionError:
            pytest.skip("closing silently needs more rights")
        again, reply = await dial.resume(b.push_id)
        assert reply["queued"] == 30 - acked
        rest = await again.take(30 - acked)
        assert [each["msgId"] for each in rest] == [row["msgId"] for row in sent[acked:]]
        overlap = got[acked:]
        assert rest[: len(overlap)] == overlap

    @pytest.mark.parametrize("seed", range(5))
    async def test_any_mixture(self, dial: Dialer, seed: int) -> None:
        """Any mixture of acks leaves what a simple count says."""
        rng = random.Random(seed)
        a, b = await dial.pair()
        got: list[Frame] = []
        done = 0
        for _ in range(60):
            step = rng.randrange(5)
            if step < 3:
                got += await packets(a, b, 1)
            elif step == 3:
                await b.ack()
                done = min(done + 1, len(got))
            elif got:
                index = rng.randrange(len(got))
                await b.ack(got[index]["seq"])
                done = max(done, index + 1)
        await b.fence()
        again, reply = await dial.resume(b.push_id)
        assert reply["queued"] == len(got) - done
        if done < len(got):
            assert await again.expect_delivery(len(got) - done) == got[done:]


class TestDurableAcks:
    """The reply to a later command means that the acks before it are committed."""

    async def test_acked_before_a_crash(self, server: StartServer) -> None:
        """What was acked before a fence never returns, whatever happens to the server."""
        own = server()
        a, b = await own.dial.pair()
        got = await packets(a, b, 10)
        await b.ack(got[5]["seq"])
        await b.fence()
        own.restart()
        again, reply = await own.dial.resume(b.push_id)
        assert (reply["queued"], reply["first"], reply["last"]) == (
            4,
            got[6]["seq"],
            got[9]["seq"],
        )
        assert await again.expect_delivery(4) == got[6:]

    async def test_seq_survives_an_empty_queue(self, server: StartServer) -> None:
        """A seq is never given out twice, though all was acked before the crash."""
        own = server()
        a, b = await own.dial.pair()
        got = await packets(a, b, 3)
        await b.ack(got[-1]["seq"])
        await b.fence()
        own.restart()
        again, reply = await own.dial.resume(b.push_id)
        assert (reply["queued"], reply["first"], reply["last"]) == (0, 0, got[-1]["seq"])
        sender, _ = await own.dial.resume(a.push_id)
        await sender.say(b.user_id, "next")
        [next_one] = await again.expect_delivery()
        assert next_one["seq"] == got[-1]["seq"] + 1
        assert int(next_one["msgId"]) > int(got[-1]["msgId"])


async def read_of(wire: Wire, chat: str) -> Frame:
    """Return the entry of a chat in `chats`."""
    [found] = [each for each in await wire.ok("chats") if each["chatId"] == chat]
    assert isinstance(found, dict)
    return found


class TestReadMarks:
    """An ack object moves the reader's read mark and acks nothing from the queue."""

    @pytest.mark.parametrize("form", ["fromId", "toId", "chatId", "info", "both"])
    async def test_forms(self, dial: Dialer, form: str) -> None:
        """Either id may be the reader's, or the chat is named; `info` does for `content`."""
        a, b = await dial.pair(accept=["ack"])
        row = await a.say(b.user_id, "x")
        await b.expect_delivery(ack=True)
        chat = pair_chat(a, b)
        assert (await read_of(b, chat))["unread"] >= 1
        forms: dict[str, Frame] = {
            "fromId": {"fromId": b.user_id, "toId": a.user_id},
            "toId": {"fromId": a.user_id, "toId": b.user_id},
            "chatId": {"chatId": chat},
            "info": {"chatId": chat, "content": "", "info": "ok"},
            "both": {"fromId": b.user_id, "toId": a.user_id, "chatId": chat},
        }
        await b.read_mark(**forms[form])
        await b.fence()
        entry = await read_of(b, chat)
        assert (entry["unread"], entry["read"]) == (0, row["msgId"])
        told = await a.recv()
        assert told["message"]["msgId"] == row["msgId"]

    async def test_has_no_answer(self, dial: Dialer) -> None:
        """An ack object has no reply."""
        a, b = await dial.pair()
        await a.say(b.user_id, "x")
        await b.expect_delivery(ack=True)
        await b.read_mark(chatId=pair_chat(a, b))
        await b.expect_nothing()

    async def test_acks_nothing_from_the_queue(self, dial: Dialer) -> None:
        """It takes no packet off the count of `"ok"`s, and none out of the queue."""
        a, b = await dial.pair()
        got = await packets(a, b, 2)
        await b.read_mark(chatId=pair_chat(a, b), msgId=got[1]["msgId"])
        await b.ack()
        await b.fence()
        again, reply = await dial.resume(b.push_id)
        assert reply["queued"] == 1
        assert await again.expect_delivery() == got[1:]

    async def test_to_the_newest_acked(self, dial: Dialer) -> None:
        """Without `msgId` it is the newest message of that chat that this device has acked."""
        a, b = await dial.pair()
        got = await packets(a, b, 4)
        await b.ack(got[1]["seq"])
        await b.read_mark(fromId=b.user_id, toId=a.user_id)
        await b.fence()
        entry = await read_of(b, pair_chat(a, b))
        assert (entry["read"], entry["unread"]) == (got[1]["msgId"], 2)

    async def test_to_a_named_message(self, dial: Dialer) -> None:
        """With `msgId` it is that one, acked or not."""
        a, b = await dial.pair()
        got = await packets(a, b, 4)
        await b.read_mark(fromId=b.user_id, toId=a.user_id, msgId=got[2]["msgId"])
        await b.fence()
        entry = await read_of(b, pair_chat(a, b))
        assert (entry["read"], entry["unread"]) == (got[2]["msgId"], 1)

    async def test_never_back(self, dial: Dialer) -> None:
        """The mark never moves back, and nobody is told when it does not move."""
        a, b = await dial.pair(accept=["ack"])
        got = await packets(a, b, 4)
        chat = pair_chat(a, b)
        for index in (2, 0, 1, 2):
            await b.read_mark(chatId=chat, msgId=got[index]["msgId"])
        await b.fence()
        assert (await read_of(b, chat))["read"] == got[2]["msgId"]
        told = await a.recv()
        assert told["message"]["msgId"] == got[2]["msgId"]
        await a.expect_nothing()

    async def test_the_peer_sees_it(self, dial: Dialer) -> None:
        """`chats` shows the peer how far it has been read."""
        a, b = await dial.pair()
        row = await a.say(b.user_id, "x")
        chat = pair_chat(a, b)
        assert int((await read_of(a, chat))["peerRead"] or 0) < int(row["msgId"])
        await b.expect_delivery(ack=True)
        await b.read_mark(chatId=chat)
        await b.fence()
        assert (await read_of(a, chat))["peerRead"] == row["msgId"]
        status = await a.ok("status", msgId=row["msgId"])
        assert status["read"]

    async def test_durable(self, server: StartServer) -> None:
        """A read mark before a fence survives a crash."""
        own = server()
        a, b = await own.dial.pair()
        got = await packets(a, b, 2)
        chat = pair_chat(a, b)
        await b.read_mark(chatId=chat, msgId=got[0]["msgId"])
        await b.fence()
        own.restart()
        again, _ = await own.dial.resume(b.push_id)
        assert (await read_of(again, chat))["read"] == got[0]["msgId"]


class TestToldAcks:
    """Read marks are told to those who accept it: the peer, and the reader's other devices."""

    async def test_frame(self, dial: Dialer) -> None:
        """The frame is the ack object, `fromId` the reader, `msgId` the newest read."""
        a, b = await dial.pair(accept=["ack"])
        second = await dial.device(b, accept=["ack"])
        row = await a.say(b.user_id, "x")
        await b.expect_delivery(ack=True)
        await second.expect_delivery(ack=True)
        await b.read_mark(chatId=pair_chat(a, b))
        for wire in (a, second):
            told = await wire.recv()
            assert (told["status"], told["pushId"]) == (1, wire.push_id)
            shown = told["message"]
            assert (shown["fromId"], shown["chatId"]) == (b.user_id, pair_chat(a, b))
            assert (shown["msgId"], shown["content"]) == (row["msgId"], "ok")
            assert shown["toId"] == a.user_id
        await b.expect_nothing()

    @pytest.mark.parametrize("accept", [None, [], ["typing", "presence"]])
    async def test_only_who_asked(self, dial: Dialer, accept: object) -> None:
        """Who did not ask for `ack` is told nothing."""
        a, b = await dial.pair(accept=accept)
        await a.say(b.user_id, "x")
        await b.expect_delivery(ack=True)
        await b.read_mark(chatId=pair_chat(a, b))
        await b.fence()
        await a.fence()
        assert not any(isinstance(each["message"], dict) for each in a.pushed)

    async def test_receipts_off(self, dial: Dialer) -> None:
        """Without the reader's `readReceipts` only the reader's own devices are told."""
        a, b = await dial.pair(accept=["ack"])
        second = await dial.device(b, accept=["ack"])
        await b.ok("set_privacy", readReceipts=False)
        await a.say(b.user_id, "x")
        await b.expect_delivery(ack=True)
        await second.expect_delivery(ack=True)
        await b.read_mark(chatId=pair_chat(a, b))
        assert isinstance((await second.recv())["message"], dict)
        await b.fence()
        await a.expect_nothing()

    async def test_not_counted_as_a_packet(self, dial: Dialer) -> None:
        """A told ack needs no `"ok"`: the next one acks the next delivery."""
        a, b = await dial.pair(accept=["ack"])
        await a.say(b.user_id, "x")
        await b.expect_delivery(ack=True)
        await b.read_mark(chatId=pair_chat(a, b))
        await a.recv()
        await b.say(a.user_id, "1")
        await a.expect_delivery()
        await b.say(a.user_id, "2")
        await a.expect_delivery()
        await a.ack()
        await a.fence()
        assert await queued(dial, a.push_id) == 1

    async def test_restart_asks_anew(self, dial: Dialer) -> None:
        """`accept` belongs to the connection: `restart` without it is told nothing."""
        a, b = await dial.pair(accept=["ack"])
        again, _ = await dial.resume(a.push_id)
        await again.say(b.user_id, "x")
        await b.expect_delivery(ack=True)
        await b.read_mark(chatId=pair_chat(a, b))
        await b.fence()
        await again.expect_nothing()

    async def test_a_strangers_chat(self, dial: Dialer) -> None:
        """A read mark in somebody else's chat changes nothing and tells nobody."""
        a, b = await dial.pair(accept=["ack"])
        row = await a.say(b.user_id, "x")
        stranger = await dial.user(started=True)
        await stranger.read_mark(chatId=pair_chat(a, b), msgId=row["msgId"])
        await stranger.read_mark(fromId=b.user_id, toId=a.user_id, msgId=row["msgId"])
        await stranger.send_line({"cmd": "ping", "id": "done"})
        while (await stranger.reply()).get("id") != "done":
            pass  # it may be told that there is no such chat
        await b.expect_delivery()
        assert (await read_of(b, pair_chat(a, b)))["unread"] >= 1
        await a.expect_nothing()


class TestTyping:
    """`typing` is told only to those who accept it, and never stored."""

    async def test_frame(self, dial: Dialer) -> None:
        """The peer that accepts it gets an event with `message` empty."""
        a, b = await dial.pair(accept=["typing"])
        assert await a.ok("typing", userId=b.user_id) == {}
        told = await b.recv()
        assert (told["status"], told["pushId"], told["message"]) == (1, b.push_id, "")
        event = told["event"]
        assert (event["name"], event["userId"]) == ("typing", a.user_id)
        assert event["chatId"] == pair_chat(a, b)
        await a.ok("typing", chatId=pair_chat(a, b))
        assert (await b.recv())["event"] == event
        assert await queued(dial, b.push_id) == 0

    async def test_only_who_asked(self, dial: Dialer) -> None:
        """Who did not ask is told nothing."""
        a, b = await dial.pair(accept=["ack", "presence"])
        b.pushed.clear()
        await a.ok("typing", userId=b.user_id)
        await b.fence()
        assert not any(each["event"]["name"] == "typing" for each in b.pushed)

    async def test_not_stored(self, dial: Dialer) -> None:
        """Who is away never gets it later."""
        a, b = await dial.pair(accept=["typing"])
        b.close()
        await a.ok("typing", userId=b.user_id)
        again, reply = await dial.resume(b.push_id, accept=["typing"])
        assert reply["queued"] == 0
        await again.expect_nothing()

    async def test_budget(self, server: StartServer) -> None:
        """Each looks at all members: more than a minute allows are 4290, told to nobody."""
        dial = server(limits_typing=3).dial
        a, b = await dial.pair(accept=["typing"])
        again = await dial.device(a)
        group = (await a.ok("create_group", name="x", kind="tag", userIds=[b.user_id]))["id"]
        await b.expect_delivery(ack=True)
        for wire in (a, again, a):
            await wire.ok("typing", chatId=group)
            await b.recv()
        assert 1 <= await limited(again, "typing", {}, userId=b.user_id) <= 60
        await limited(a, "typing", {}, chatId=group)
        await b.expect_nothing()


class TestPresence:
    """Friends who accept `presence` are told when somebody comes and goes."""

    async def test_comes_and_goes(self, dial: Dialer) -> None:
        """The event says who, whether online, and when last seen."""
        a, b = await dial.pair()
        watcher, _ = await dial.resume(a.push_id, accept=["presence"])
        b.close()
        gone = (await watcher.recv())["event"]
        assert (gone["name"], gone["userId"], gone["online"]) == ("presence", b.user_id, False)
        assert gone["lastSeen"]
        await dial.resume(b.push_id)
        told = await watcher.recv()
        assert (told["status"], told["pushId"], told["message"]) == (1, watcher.push_id, "")
        assert (told["event"]["userId"], told["event"]["online"]) == (b.user_id, True)
        [shown] = await watcher.ok("presence", userIds=[b.user_id])
        assert (shown["userId"], shown["online"]) == (b.user_id, True)

    async def test_only_the_last_device_goes_offline(self, dial: Dialer) -> None:
        """While another device is connected the user is online."""
        a, b = await dial.pair()
        second = await dial.device(b)
        watcher, _ = await dial.resume(a.push_id, accept=["presence"])
        b.close()
        [shown] = await watcher.ok("presence", userIds=[b.user_id])
        assert shown["online"] is True
        second.close()
        told = (await watcher.recv())["event"]
        assert (told["userId"], told["online"]) == (b.user_id, False)

    async def test_hidden(self, dial: Dialer) -> None:
        """Who does not show presence is told to nobody."""
        a, b = await dial.pair()
        await b.ok("set_privacy", showPresence=False)
        watcher, _ = await dial.resume(a.push_id, accept=["presence"])
        b.close()
        again, _ = await dial.resume(b.push_id)
        await again.fence()
        await watcher.expect_nothing()

    async def test_not_to_strangers(self, dial: Dialer) -> None:
        """Who is no friend is not told."""
        watcher = await dial.user()
        await watcher.start(accept=ACCEPT)
        other = await dial.user(started=True)
        other.close()
        again, _ = await dial.resume(other.push_id)
        await again.fence()
        await watcher.expect_nothing()


async def test_accept_words_of_later_versions(dial: Dialer) -> None:
    """Whoever accepts all kinds is told all kinds, in whatever order they are named."""
    a, b = await dial.user(), await dial.user()
    await befriend(a, b)
    for wire in (a, b):
        reply = await wire.start(accept=list(reversed(ACCEPT)))
        await wire.drain(reply["queued"])
    await a.fence()
    a.pushed.clear()  # that b came online
    await b.say(a.user_id, "x")
    [got] = await a.expect_delivery(ack=True)
    assert content(got) == "x"
    await a.read_mark(chatId=pair_chat(a, b))
    told = await b.recv()
    assert told["message"]["fromId"] == a.user_id
