"""Section 2.3, ends of the server: SIGTERM, SIGKILL, and what holds over a restart."""

import asyncio
import random
import signal
import time
from contextlib import suppress

import pytest

from .process import Process, StartServer
from .wire import Closed, Frame, Wire, befriend, content, encode, frame, lines, text

SHUTDOWN = {
    "status": 5030,
    "pushId": "",
    "message": "restarting",
    "retryAfter": 3,
    "event": {"name": "shutdown"},
}


async def stopped(own: Process) -> float:
    """Wait for the end after a SIGTERM, require exit code 0, and return how long it took."""
    began = time.monotonic()
    assert await own.ended() == 0
    return time.monotonic() - began


class TestTerminate:
    """On SIGTERM the server answers what it has read, says so, and exits with 0."""

    @pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_last_frame(self, server: StartServer, loop: str, number: signal.Signals) -> None:
        """Every connection's last frame says that the server restarts; then a clean close."""
        own = server(loop=loop)
        wires = [await own.dial(), await own.dial.user(), *await own.dial.pair()]
        for wire in wires:
            await wire.fence()
        own.signal(number)
        for wire in wires:
            assert await wire.rest() == [SHUTDOWN]
        assert await stopped(own) < 10

    async def test_nobody_connected(self, server: StartServer) -> None:
        """Without clients it stops at once."""
        own = server()
        own.signal()
        assert await stopped(own) < 3

    async def test_no_new_connections(self, server: StartServer) -> None:
        """After its last frames the server listens no more."""
        own = server()
        wire = await own.dial()
        await wire.fence()
        own.signal()
        await wire.rest()
        await own.ended()
        with pytest.raises(ConnectionRefusedError):
            await own.dial()

    async def test_many_idle_and_some_that_do_not_read(self, server: StartServer) -> None:
        """It ends in less than 10 seconds although clients hang."""
        own = server()
        a, b = await own.dial.pair()
        b.close()
        for _ in range(10):
            await a.post(*(text(b.user_id, "x" * 9_000) for _ in range(50)))
        stuck = await own.dial(receive_buffer=2048)
        await stuck.send_line(frame("restart", b.push_id))
        half = await own.dial()
        await half.send_raw(b'{"cmd":"ping"')
        idle = [await own.dial() for _ in range(200)]
        await idle[-1].fence()
        own.signal()
        for wire in idle:
            assert await wire.rest() == [SHUTDOWN]
        assert await stopped(own) < 10

    async def test_a_second_one_ends_at_once(self, server: StartServer) -> None:
        """A second SIGTERM does not wait for anybody."""
        own = server()
        a, b = await own.dial.pair()
        b.close()
        for _ in range(10):
            await a.post(*(text(b.user_id, "x" * 9_000) for _ in range(50)))
        stuck = await own.dial(receive_buffer=2048)
        await stuck.send_line(frame("restart", b.push_id))
        await a.fence()
        own.signal()
        assert await a.rest() == [SHUTDOWN]
        own.signal()
        began = time.monotonic()
        await own.ended()
        assert time.monotonic() - began < 4

    @pytest.mark.parametrize("seed", range(4))
    async def test_everything_read_is_answered(self, server: StartServer, seed: int) -> None:
        """In the middle of a stream: each frame that was read is answered ok or 5030, in order."""
        own = server()
        a, b = await own.dial.pair()
        total = 3_000
        stream = lines(
            *(frame([text(b.user_id, f"{n}", clientId=f"c{n}")], id=n) for n in range(total))
        )

        async def write() -> None:
            with suppress(OSError):
                await a.send_pieces(stream, 50_000)

        writer = asyncio.create_task(write())
        for _ in range(100 * (seed + 1)):
            await a.reply()
        own.signal()
        replies = await a.rest()
        await writer
        assert replies.pop() == SHUTDOWN
        first = 100 * (seed + 1)
        assert [each["id"] for each in replies] == list(range(first, first + len(replies)))
        statuses = [each["status"] for each in replies]
        assert set(statuses) <= {1, 5030}
        confirmed = first + statuses.count(1)
        assert statuses == sorted(statuses), "nothing is accepted behind what was refused"
        await own.ended()
        own.start()
        again, reply = await own.dial.resume(b.push_id)
        got = await again.take(reply["queued"])
        assert [content(each) for each in got] == [f"{n}" for n in range(confirmed)]
        sender, _ = await own.dial.resume(a.push_id)
        await sender.post(
            *(
                text(b.user_id, f"{n}", clientId=f"c{n}")
                for n in range(confirmed - 3, confirmed + 3)
            )
        )
        later = await again.take(3)
        assert [content(each) for each in later] == [f"{confirmed + n}" for n in range(3)]

    async def test_deliveries_survive(self, server: StartServer) -> None:
        """What was confirmed and not acked is delivered after the restart, the same."""
        own = server()
        a, b = await own.dial.pair()
        await a.post(*(text(b.user_id, f"{n}") for n in range(30)))
        got = await b.expect_delivery(30)
        await b.ack(got[9]["seq"])
        await b.fence()
        own.signal()
        await own.ended()
        own.start()
        again, reply = await own.dial.resume(b.push_id)
        assert (reply["queued"], reply["first"]) == (20, got[10]["seq"])
        assert await again.expect_delivery(20) == got[10:]


class Load:
    """One sender at full speed and one receiver that acks, until the server is gone."""

    def __init__(self, a: Wire, b: Wire, known: int) -> None:
        self.a = a
        self.b = b
        self.next = known  # the number of the next message
        self.confirmed: dict[str, str] = {}  # content -> msgId
        self.received: list[Frame] = []
        self.progress = asyncio.Condition()  # told of each confirmation

    async def more_confirmed(self, count: int) -> None:
        """Wait until `count` more messages have been confirmed."""
        target = len(self.confirmed) + count
        async with self.progress:
            await self.progress.wait_for(lambda: len(self.confirmed) >= target)

    async def send(self) -> None:
        """Send pipelined lists and note what was confirmed."""
        outstanding: list[list[str]] = []
        with suppress(Closed, OSError):
            while True:
                while len(outstanding) < 20:
                    words = [f"{self.next + n}" for n in range(3)]
                    self.next += 3
                    await self.a.send_line(
                        frame([text(self.b.user_id, each, clientId=f"c{each}") for each in words])
                    )
                    outstanding.append(words)
                reply = await self.a.reply()
                words = outstanding.pop(0)
                if reply["status"] == 1:
                    ids = [row["msgId"] for row in reply["result"]]
                    self.confirmed.update(zip(words, ids, strict=True))
                    async with self.progress:
                        self.progress.notify_all()

    async def receive(self) -> None:
        """Receive and ack each second packet's end."""
        with suppress(Closed, OSError):
            while True:
                received = await self.b.recv()
                if isinstance(received["message"], list):
                    self.received += received["message"]
                    if len(self.received) % 2:
                        await self.b.ack(self.received[-1]["seq"])


def check(seen: list[Frame], confirmed: dict[str, str]) -> None:
    """Require that a device saw everything confirmed, in order, with one number for each."""
    by_seq: dict[int, str] = {}
    for each in seen:
        known = by_seq.setdefault(each["seq"], each["msgId"])
        assert known == each["msgId"], f"another message under seq {each['seq']}"
    places = sorted(by_seq)
    assert places == list(range(places[0], places[0] + len(places))), "seq has holes"
    ids = [int(by_seq[seq]) for seq in places]
    assert ids == sorted(set(ids)), "msgIds do not rise, or one came under two seqs"
    texts = {content(each): each["msgId"] for each in seen}
    missing = {words: at for words, at in confirmed.items() if texts.get(words) != at}
    assert not missing, f"confirmed and not delivered: {missing}"


class TestKill:
    """SIGKILL at any moment loses nothing that was confirmed, and doubles nothing."""

    async def test_redelivery(self, server: StartServer) -> None:
        """After SIGKILL the unacked messages come again with the same seq and msgId."""
        own = server()
        a, b = await own.dial.pair()
        await a.post(*(text(b.user_id, f"{n}") for n in range(30)))
        got = await b.expect_delivery(30)
        await b.ack(got[6]["seq"])
        await b.fence()
        own.restart()
        again, reply = await own.dial.resume(b.push_id)
        assert (reply["queued"], reply["first"], reply["last"]) == (
            23,
            got[7]["seq"],
            got[29]["seq"],
        )
        assert await again.expect_delivery(23) == got[7:]

    async def test_everything_is_still_there(self, server: StartServer) -> None:
        """Accounts, friends, devices, history and the epoch survive."""
        own = server()
        a, b = await own.dial.pair()
        row = await a.say(b.user_id, "x", clientId="mine")
        [got] = await b.expect_delivery()
        epoch = (await (await own.dial.user()).start())["epoch"]
        own.restart()
        again, reply = await own.dial.resume(a.push_id)
        assert (reply["userId"], reply["epoch"]) == (a.user_id, epoch)
        assert await again.say(b.user_id, "x", clientId="mine") == row
        await again.refused(4003, frame([text(b.user_id, "y", clientId="mine")]))
        [*_, shown] = await again.ok("history", userId=b.user_id)
        assert (shown["msgId"], shown["time"]) == (row["msgId"], got["time"])
        known = await own.dial()
        await known.login(b.phone)
        await known.say(a.user_id, "still friends")

    async def test_a_lost_confirmation_and_a_retry(self, server: StartServer) -> None:
        """A retry after a confirmation that was never read delivers once, with one msgId."""
        own = server()
        a, b = await own.dial.pair()
        for n in range(3):
            await a.send_line(frame([text(b.user_id, f"{n}", clientId=f"c{n}")]))
        first = (await b.packet())["message"]
        own.restart()
        sender, _ = await own.dial.resume(a.push_id)
        rows = await sender.post(*(text(b.user_id, f"{n}", clientId=f"c{n}") for n in range(3)))
        again, _ = await own.dial.resume(b.push_id)
        got = await again.take(3)
        assert [content(each) for each in got] == ["0", "1", "2"]
        assert [each["msgId"] for each in got] == [row["msgId"] for row in rows]
        assert got[: len(first)] == first

    async def test_killed_devices_stay_dead(self, server: StartServer) -> None:
        """What a confirmed `logout` or `sign_out` ended does not come back."""
        own = server()
        one = await own.dial.user(started=True)
        two = await own.dial.device(one)
        three = await own.dial.device(one)
        await one.ok("logout")
        [other] = [each for each in await three.ok("devices") if not each["current"]]
        await three.ok("sign_out", deviceId=other["deviceId"])
        own.restart()
        wire = await own.dial()
        for push_id in (one.push_id, two.push_id):
            await wire.refused(11001, frame("restart", push_id))
        await wire.restart(three.push_id)

    @pytest.mark.parametrize("seed", range(6))
    async def test_at_random_moments(self, server: StartServer, seed: int) -> None:
        """Full speed, killed at a random moment, three times over: nothing lost or doubled."""
        rng = random.Random(seed)
        own = server()
        a, b = await own.dial.pair()
        load = Load(a, b, 0)
        for _ in range(3):
            sender = asyncio.create_task(load.send())
            receiver = asyncio.create_task(load.receive())
            await load.more_confirmed(rng.randrange(1, 600))
            own.kill()
            await asyncio.gather(sender, receiver)
            own.start()
            load.a, _ = await own.dial.resume(a.push_id)
            load.b, _ = await own.dial.resume(b.push_id)
        assert load.b.user_id == b.user_id
        sentinel = await load.a.say(b.user_id, "sentinel")
        while not load.received or load.received[-1]["msgId"] != sentinel["msgId"]:
            load.received += (await load.b.packet())["message"]
            await load.b.ack()
        check(load.received, load.confirmed)

    async def test_killed_while_many_are_there(self, server: StartServer) -> None:
        """After a kill everybody is back within seconds, and `restart` needs no password."""
        own = server()
        first = await own.dial.user(started=True)
        wires = [first, *[await own.dial.device(first) for _ in range(9)]]
        for _ in range(9):
            other = await own.dial.user(started=True)
            wires += [other, *[await own.dial.device(other) for _ in range(4)]]
        own.settings["auth_bcrypt_cost"] = "12"
        own.restart()
        began = time.monotonic()
        back = await asyncio.gather(*(own.dial.resume(wire.push_id) for wire in wires))
        assert time.monotonic() - began < 5
        assert [reply["pushId"] for _, reply in back] == [wire.push_id for wire in wires]


class TestAwake:
    """Password checks never hold up those who are there."""

    async def test_heartbeats_during_a_burst_of_logins(self, server: StartServer) -> None:
        """While many log in, right and wrong, heartbeats are answered at once."""
        own = server(auth_bcrypt_cost=10)
        known = await own.dial.user(started=True)
        pulse = await own.dial()
        logins = [await own.dial() for _ in range(20)]
        for n, wire in enumerate(logins):
            password = known.password if n % 2 else "wrong-password"
            await wire.send_line({"cmd": "login", "phone": known.phone, "password": password})
        waits: list[float] = []

        async def beat(done: asyncio.Event) -> None:
            while not done.is_set():
                began = time.monotonic()
                await pulse.heartbeat()
                waits.append(time.monotonic() - began)
                with suppress(TimeoutError):
                    await asyncio.wait_for(done.wait(), 0.02)

        done = asyncio.Event()
        beats = asyncio.create_task(beat(done))
        replies = await asyncio.gather(*(wire.reply(60) for wire in logins))
        done.set()
        await beats
        for n, reply in enumerate(replies):
            assert reply["status"] in ((1, 4290) if n % 2 else (10000, 4290)), reply
        waits.sort()
        assert waits[-1] < 0.5
        assert waits[len(waits) * 99 // 100 - 1] < 0.1


async def test_data_survives_a_half_written_frame(server: StartServer) -> None:
    """A kill with half a frame on the wire: that frame was never there."""
    own = server()
    a, b = await own.dial.user(), await own.dial.user()
    await befriend(a, b)
    line = encode(frame([text(b.user_id, "half")]))
    await a.fence()
    await a.send_raw(line[:-5])
    own.restart()
    again = await own.dial()
    await again.login(b.phone)
    shown = await again.ok("history", userId=a.user_id)
    assert "half" not in [content(each) for each in shown]
