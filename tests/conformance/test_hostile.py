"""What must hold when a peer floods, stalls or leaves, and when the store is busy or races end.

The database is locked here as another program would lock it; what is committed then waits for
`store.busy_seconds`. Bounds in seconds are generous: without the care they prove they are missed
by far, and a loaded machine keeps them.
"""

import asyncio
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from .crowd import note
from .people import ONE_LOOP, ids, make_friends, users
from .process import Process, StartServer
from .wire import (
    PASSWORD,
    Dialer,
    Frame,
    Wire,
    befriend,
    content,
    frame,
    lines,
    padded,
    text,
)

BAD = b'{"cmd":1}'
MIB = 1024 * 1024
# How long anybody may wait for another's flood, in seconds.
TURN = 1.0
# How long a read or a write may take where a whole flood goes through, in seconds.
FLOOD_PATIENCE = 60.0


@contextmanager
def locked(own: Process) -> Iterator[None]:
    """Hold the lock for writers of the server's database."""
    held = sqlite3.connect(own.data / "pushd.db", isolation_level=None)
    try:
        held.execute("BEGIN IMMEDIATE")
        yield
        held.execute("ROLLBACK")
    finally:
        held.close()


def resident(own: Process) -> int:
    """Return the bytes of memory that the server's process has."""
    assert own.process is not None
    for line in Path(f"/proc/{own.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


async def fences(wire: Wire, count: int = 5) -> None:
    """Let the server's loop turn a few times, so that it has read what it will read."""
    for _ in range(count):
        await wire.fence()


async def fences_for(wire: Wire, seconds: float) -> None:
    """Ping until a time of the server's has passed."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        await wire.fence()


async def longest_wait(wire: Wire, task: "asyncio.Task[None]") -> tuple[float, int]:
    """Ping until a task is done; return the longest wait for an answer and how many there were."""
    longest, count = 0.0, 0
    while not task.done():
        began = time.monotonic()
        await wire.fence()
        longest, count = max(longest, time.monotonic() - began), count + 1
    await task
    return longest, count


async def offer(wire: Wire, data: bytes, most: int, other: Wire) -> int:
    """Send the same bytes until the server takes no more, or `most`; return how many it took.

    It takes no more when the socket stays full while the server answers somebody else.
    """
    taken, at, idle = 0, 0, 0
    while taken < most and idle < 50:
        try:
            sent = wire.sock.send(data[at:])
        except BlockingIOError:
            idle += 1
            await other.fence()
        else:
            idle, taken, at = 0, taken + sent, (at + sent) % len(data)
    return taken


async def take_all(wire: Wire, count: int) -> list[Frame]:
    """Return this many replies, for a flood's many."""
    return [await wire.reply(FLOOD_PATIENCE) for _ in range(count)]


class TestBusyStore:
    """While another program holds the database locked."""

    async def test_a_command_behind_acks(self, server: StartServer) -> None:
        """A command whose acks cannot be committed gets 5030; the next one means they are."""
        own = server(store_busy_seconds=0.3)
        a, b = await own.dial.pair()
        await a.say(b.user_id, "hi")
        [got] = await b.expect_delivery()
        with locked(own):
            await b.ack(got["seq"])
            reply = await b.command("ping", text="x", id=1)
        assert (reply["cmd"], reply["status"], reply["id"]) == ("ping", 5030, 1)
        assert reply["retryAfter"] >= 1
        assert reply["result"] == {}
        await b.fence()
        own.restart()
        _, started = await own.dial.resume(b.push_id)
        assert started["queued"] == 0

    async def test_heartbeats_behind_a_list(self, server: StartServer) -> None:
        """All heartbeats behind a list that waits are answered in order, and nobody waits."""
        count = 20_000
        own = server(store_busy_seconds=30)
        a, b = await own.dial.pair()
        data = lines(frame([text(b.user_id, "hi")], id=0), *({"id": n} for n in range(1, count)))
        with locked(own):
            sending = asyncio.create_task(a.send_raw(data))
            await fences(b)
        reading = asyncio.create_task(take_all(a, count))

        async def finish() -> None:
            await asyncio.gather(sending, reading)

        longest, _ = await longest_wait(b, asyncio.create_task(finish()))
        assert longest < TURN
        assert [reply["id"] for reply in reading.result()] == list(range(count))
        assert {reply["status"] for reply in reading.result()} == {1}

    @pytest.mark.parametrize("first", ["bad line", "list"])
    async def test_input_behind_a_bad_line(self, server: StartServer, first: str) -> None:
        """Input that waits for a list and a bad line stays with its sender, not in memory."""
        own = server(store_busy_seconds=30)
        a, b = await own.dial.pair()
        waiting = frame([text(b.user_id, "hi")])
        pings = lines({"cmd": "ping", "text": "x" * 1000}) * 256
        before = resident(own)
        with locked(own):
            if first == "bad line":
                await a.refused(4003, BAD)
                await a.send_line(waiting)
            else:
                await a.send_raw(lines(waiting, BAD))
            taken = await offer(a, pings, 60 * MIB, b)
            grown = resident(own) - before
        assert grown < 40 * MIB
        assert taken < 60 * MIB

    async def test_no_receipts(self, server: StartServer) -> None:
        """With `readReceipts` off no receipt is sent, also when the reader has left by then."""
        own = server(store_busy_seconds=30)
        other, third = await own.dial.pair()
        sender, reader = await own.dial.pair()
        await reader.ok("set_privacy", readReceipts=False)
        watching, _ = await own.dial.resume(sender.push_id, accept=["ack"])
        row = await watching.say(reader.user_id, "q")
        await reader.expect_delivery(ack=True)
        await reader.fence()
        with locked(own):
            await reader.read_mark(fromId=reader.user_id, toId=watching.user_id, msgId=row["msgId"])
            await fences(other)
            reader.abort()
            await fences(other)
        # What is committed twice after it has the mark before it.
        await other.say(third.user_id, "1")
        await other.say(third.user_id, "2")
        await watching.expect_nothing()
        again = await own.dial()
        await again.login(reader.phone)
        [chat] = [each for each in await again.ok("chats") if each["chatId"] == row["chatId"]]
        assert chat["read"] == row["msgId"]

    async def test_a_blank_line_behind_a_list(self, server: StartServer) -> None:
        """A blank line resets the count of bad lines also where a list waits before them."""
        own = server(store_busy_seconds=30)
        a, b = await own.dial.pair()
        half = lines(*[BAD] * 5)
        with locked(own):
            ping = {"cmd": "ping", "id": 7}
            await a.send_raw(
                lines(frame([text(b.user_id, "hi")])) + half + b"\n" + half + lines(ping)
            )
            await fences(b)
        replies = [await a.reply() for _ in range(12)]
        assert [reply["status"] for reply in replies] == [1, *[4003] * 10, 1]
        assert replies[-1]["id"] == 7

    async def test_nothing_behind_the_tenth_bad_line(self, server: StartServer) -> None:
        """Ten bad lines behind a list end the connection; a list behind them is not accepted."""
        own = server(store_busy_seconds=30)
        a, b = await own.dial.pair()
        one, two = (frame([text(b.user_id, words)]) for words in ("one", "two"))
        with locked(own):
            await a.send_raw(lines(one, *[BAD] * 10, two))
            await fences(b)
        assert [reply["status"] for reply in await a.rest()] == [1, *[4003] * 10]
        a, _ = await own.dial.resume(a.push_id)
        await a.say(b.user_id, "three")
        assert [content(got) for got in await b.expect_delivery(2)] == ["one", "three"]


class TestFlood:
    """Lines as fast as they go delay nobody else, and cost no memory afterwards."""

    @pytest.mark.parametrize(("unit", "count"), [(b"{}\n", 80_000), (b"\n", 1_200_000)])
    async def test_others_are_answered(self, server: StartServer, unit: bytes, count: int) -> None:
        """While one connection floods with the shortest lines, another's ping is answered."""
        own = server()
        flooder, other = await users(own.dial, 2)
        loop = asyncio.get_running_loop()

        async def send() -> None:
            await loop.sock_sendall(flooder.sock, unit * count)
            await loop.sock_sendall(flooder.sock, b'{"cmd":"quit"}\n')

        async def flood() -> None:
            sending = asyncio.create_task(send())
            while await loop.sock_recv(flooder.sock, MIB):
                pass
            await sending

        async with asyncio.timeout(FLOOD_PATIENCE):
            longest, answers = await longest_wait(other, asyncio.create_task(flood()))
        assert longest < TURN
        assert answers >= 3

    async def test_an_idle_connection_keeps_no_line(self, server: StartServer) -> None:
        """A connection that has said a long line keeps none of it while it is idle."""
        own = server()
        people = await users(own.dial, 24)
        line = padded(b'{"message":""}', MIB)
        await people[0].exchange(line)
        before = resident(own)
        for each in people[1:]:
            await each.exchange(line)
        assert resident(own) - before < 10 * MIB

    @ONE_LOOP
    async def test_a_long_answer(self, dial: Dialer) -> None:
        """A ping's text whose escapes would exceed a reply's limit is refused with 4003."""
        a = await dial.user()
        reply = await a.refused(4003, {"cmd": "ping", "text": "\u2028" * 340_000})
        assert reply["field"] == "text"
        await a.send_line({"cmd": "ping", "text": "\u2028" * 1000})
        answer = await a.recv_line()
        assert answer.count(rb"\u2028") == 1000


class TestEnds:
    """A connection's last replies."""

    @pytest.mark.parametrize("end", ["eof", "quit"])
    async def test_a_slow_reader(self, server: StartServer, end: str) -> None:
        """At the end of input and at `quit` a peer that reads late still gets every reply."""
        own = server(limits_drain=0.1)
        other = await own.dial.user()
        slow = await own.dial(receive_buffer=8192)
        await slow.register()
        pings = [{"cmd": "ping", "text": "x" * 900_000, "id": n} for n in range(6)]
        asked = [*pings, {"cmd": "quit", "id": 6}] if end == "quit" else pings
        sending = asyncio.create_task(slow.send_raw(lines(*asked)))
        replies = [await slow.reply() for _ in range(2)]
        await sending
        if end == "eof":
            slow.half_close()
        # Longer than the time for a peer's end, which counts only once all is taken.
        await fences_for(other, 0.6)
        replies += await slow.rest()
        assert [reply["id"] for reply in replies] == list(range(len(asked)))

    async def test_a_login_at_sigterm(self, server: StartServer) -> None:
        """A login that the end finds at work gets its reply or 5030, and then the last frame."""
        own = server(auth_bcrypt_cost=11, server_stop_seconds=2)
        a = await own.dial.user()
        b = await own.dial()
        await b.send_line({"cmd": "login", "phone": a.phone, "password": PASSWORD, "id": 9})
        await fences(a, 2)
        own.signal(signal.SIGTERM)
        reply, last = await b.rest()
        assert reply["id"] == 9
        assert reply["status"] in (1, 5030)
        assert last["event"] == {"name": "shutdown"}
        assert [each["event"]["name"] for each in await a.rest()] == ["shutdown"]
        assert await own.ended() == 0

    async def test_login_times_after_logout(self, server: StartServer) -> None:
        """After `logout` a connection has the times of a new one, and then they hold."""
        own = server(limits_login_total=1, limits_login_idle=1, limits_heartbeat_min=1)
        a = await own.dial.user(started=True)
        await fences_for(a, 1.2)
        await a.ok("logout")
        await fences_for(a, 0.6)
        began = time.monotonic()
        assert await a.rest() == []
        assert time.monotonic() - began < 5

    async def test_msg_ids_after_a_deletion(self, server: StartServer) -> None:
        """No msgId is given twice, also when the newest went with its account."""
        own = server()
        a, b = await own.dial.pair()
        gone, friend = await users(own.dial, 2)
        await gone.start()
        await befriend_waiting(gone, friend)
        [notice] = await gone.expect_delivery()
        await gone.ok("delete_account", password=PASSWORD)
        own.restart()
        a, _ = await own.dial.resume(a.push_id)
        row = await a.say(b.user_id, "x")
        assert int(row["msgId"]) > int(notice["msgId"])


async def befriend_waiting(asker: Wire, other: Wire) -> None:
    """Make friends; the notice to the asker, the newest message of all, is not taken off."""
    await asker.ok("add_friend", userId=other.user_id)
    await other.ok("accept_friend", userId=asker.user_id)


class TestTakeover:
    """A device comes up on a second connection while it is busy on the first."""

    @ONE_LOOP
    async def test_while_the_old_one_acks(self, dial: Dialer) -> None:
        """What flows after a takeover begins at the reply's `first` and has no hole."""
        a, old = await dial.pair()
        for turn in range(20):
            await a.post(*(text(old.user_id, f"{turn}.{n}") for n in range(100)))
            got = await old.expect_delivery(100)
            new = await dial()
            new.sock.send(lines(frame("restart", old.push_id)))
            for at in range(9, 100, 10):
                with suppress(ConnectionError):
                    old.sock.send(lines(frame("ok", old.push_id, seq=got[at]["seq"])))
            started = await new.reply()
            assert started["status"] == 1, started
            new.push_id, new.user_id = started["pushId"], started["userId"]
            assert started["last"] == int(got[-1]["seq"])
            flowing = await new.expect_delivery(started["queued"]) if started["queued"] else []
            expected = range(started["first"], started["last"] + 1) if flowing else ()
            assert [int(each["seq"]) for each in flowing] == list(expected), turn
            if flowing:
                await new.ack(flowing[-1]["seq"])
            await new.fence()
            old.close()
            old = new

    @ONE_LOOP
    async def test_watchers_see_no_offline(self, dial: Dialer) -> None:
        """A takeover is no going offline: friends who watch are told nothing."""
        a, b = await dial.user(), await dial.user()
        await befriend(a, b)
        await b.drain((await b.start())["queued"])
        await a.drain((await a.start(accept=["presence"]))["queued"])
        for _ in range(5):
            again, _ = await dial.resume(b.push_id)
            assert (await b.rest())[-1]["event"]["name"] == "replaced"
            await again.fence()
            await a.fence()
            b = again
        seen = [each["event"] for each in a.pushed if "event" in each]
        assert not [event for event in seen if event["online"] is not True], seen


class TestBlocks:
    """A blocked person finds no other way in."""

    @ONE_LOOP
    async def test_an_old_request(self, dial: Dialer) -> None:
        """A blocked person cannot accept what the blocker had asked before."""
        a, b = await users(dial, 2)
        await a.ok("add_friend", userId=b.user_id)
        await a.ok("block", userId=b.user_id)
        reply = await b.command("accept_friend", userId=a.user_id)
        assert reply["status"] != 1, reply
        assert ids(await a.ok("friends")) == ids(await b.ok("friends")) == []

    @ONE_LOOP
    async def test_into_a_group(self, dial: Dialer) -> None:
        """A blocked friend can put the blocker into no group, new or old: 4004."""
        a, b = await dial.pair()
        await b.ok("block", userId=a.user_id)
        made = {"cmd": "create_group", "name": "G", "kind": "group"}
        await a.refused(4004, {**made, "userIds": [b.user_id]})
        group = await a.ok("create_group", name="G", kind="group")
        await a.refused(4004, {"cmd": "invite", "groupId": group["id"], "userIds": [b.user_id]})
        await b.expect_nothing()
        assert await b.ok("my_groups") == []

    @ONE_LOOP
    async def test_a_join_request(self, dial: Dialer) -> None:
        """A blocked person's request to join brings the blocker no message."""
        a, b = await dial.pair()
        admin = await dial.user()
        await make_friends(b, admin)
        await b.expect_delivery(ack=True)
        await b.ok("block", userId=a.user_id)
        group = await b.ok("create_group", name="G", kind="group", userIds=[admin.user_id])
        await b.fence()
        b.pushed.clear()
        await a.command("join_group", groupId=group["id"], description="an insult")
        await b.expect_nothing()

    @ONE_LOOP
    async def test_a_chat_id_is_whole(self, dial: Dialer) -> None:
        """A group's id with something behind it is no group: 4005."""
        a = await dial.user()
        group = await a.ok("create_group", name="G", kind="group")
        for wrong in (f"{group['id']} junk", f"junk {group['id']}", f"{group['id']} "):
            await a.refused(4005, frame([note(wrong, "x", "7")]))
        await a.post(note(group["id"], "x", "7"))
