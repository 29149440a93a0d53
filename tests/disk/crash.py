"""Kill the server under load, start it again, and check that no confirmed message is lost.

    python -m tests.disk.crash --rounds 100            # or --seconds 600

In a round 20 clients (10 pairs of friends) send at full speed with clientIds and ack what they
get; after 0.05 to 1.5 s the server gets a SIGKILL and is started again, every fifth time after
one more SIGKILL during the start. Then everybody restarts their device, sends again what was not
answered, and takes in what waits, until all queues are empty. What the clients saw of all this is
a log for `tests.model.checker`. Exit code 1 if it finds a violation.

The clients speak the wire on bare sockets: what they log must not depend on our own library.
"""

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conformance.process import Process
from tests.model.checker import (
    Acked,
    Answered,
    Delivered,
    Entry,
    Fenced,
    Report,
    Resumed,
    Sent,
    check,
)
from tests.model.record import record

CLIENTS = 20
PASSWORD = "Zebra-7731"
PATIENCE = 30.0  # seconds for any answer
MOST_LINE = 1 << 21
# Messages a client has unanswered at most, and in one list.
UNANSWERED = 100
LIST = 10
# The server's life in a round, and during a start that is killed as well, in seconds.
LIFE = (0.05, 1.5)
START_LIFE = (0.0, 0.5)
KILL_STARTS = 5  # every so many rounds

# What is done to the stopped store between the kill and the start; for controls.
Between = Callable[[Path], None]


class Hole(Exception):
    """The server broke the contract so that a client cannot go on."""


@dataclass
class Pending:
    """A message that is not answered yet."""

    client_id: str
    content: str


class Crasher:
    """One client: a device that is connected again and again."""

    def __init__(self, name: str, log: list[Entry], rng: random.Random) -> None:
        self.name = name
        self.user = ""  # the server's id
        self.peer = ""
        self.turn = 0
        self.last = 0  # the highest seq that was taken in
        self.unanswered: deque[Pending] = deque()
        self._push_id = ""
        self._log = log
        self._random = rng
        self._lists: deque[int] = deque()  # messages in each list without a reply
        self._count = 0
        self._acked = 0
        self._target = 0  # the highest seq that waited at the restart
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    # --- a connection ---------------------------------------------------------------------

    async def connect(self, address: tuple[str, int]) -> None:
        """Open a connection."""
        self._reader, self._writer = await asyncio.open_connection(*address, limit=MOST_LINE)

    async def close(self) -> None:
        """Cut the connection; what was not answered is unknown."""
        self._writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
        self._lists.clear()
        for pending in self.unanswered:
            self._log.append(Answered(self.name, self.turn, pending.client_id, "unknown"))

    async def request(self, frame: dict[str, Any]) -> dict[str, Any]:
        """Send a frame and give its answer, taking in what is delivered before."""
        self._write(frame)
        async with asyncio.timeout(PATIENCE):
            while True:
                reply = await self._read()
                if reply is not None and not self._answer(reply):
                    return reply

    async def restart(self) -> None:
        """Take the device up again, and send again what was not answered."""
        reply = await self.request({"status": 1, "pushId": self._push_id, "message": "restart"})
        if reply["status"] != 1:
            raise Hole(f"{self.name} cannot restart: {reply}")
        first, last, queued = reply["first"], reply["last"], reply["queued"]
        self.turn += 1
        self._log.append(Resumed(self.name, self.turn, self.user, first, last, queued))
        self.last = self._acked = first - 1 if queued else last
        self._target = last
        self._resend()

    def begin_log(self) -> None:
        """Begin a new log on a connection that is quiet."""
        self.turn = 1
        self._log.append(Resumed(self.name, 1, self.user, 0, self.last, 0))

    def _write(self, frame: dict[str, Any]) -> None:
        # To a dead server it is as if it had been lost on the way.
        if not self._writer.transport.is_closing():
            self._writer.write(json.dumps(frame).encode() + b"\n")

    async def _read(self) -> dict[str, Any] | None:
        """Give the next frame that is no delivery; a delivery is taken in and acked."""
        line = await self._reader.readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError
        frame: dict[str, Any] = json.loads(line)
        if not isinstance(frame.get("message"), list):
            return frame
        self._take(frame["message"])
        return None

    def _take(self, messages: list[dict[str, Any]]) -> None:
        for message in messages:
            if message["type"] != "1":
                raise Hole(f"{self.name} was sent {message}")
            sender, to, seq = message["fromId"], message["toId"], message["seq"]
            content = message["info"][0]["content"]
            number = int(message["msgId"])
            self._log.append(Delivered(self.name, self.turn, seq, number, sender, to, content))
            self.last = seq
        self._write({"status": 1, "pushId": self._push_id, "message": "ok"})
        for seq in range(self._acked + 1, self.last + 1):
            self._log.append(Acked(self.name, self.turn, seq))
        self._acked = self.last

    # --- messages -------------------------------------------------------------------------

    def _send(self, pendings: list[Pending]) -> None:
        self._lists.append(len(pendings))
        for one in pendings:
            entry = Sent(self.name, self.turn, one.client_id, self.peer, one.content)
            self._log.append(entry)
        messages = [
            {
                "toId": self.peer,
                "type": "1",
                "info": [{"category": "0", "content": one.content}],
                "clientId": one.client_id,
            }
            for one in pendings
        ]
        self._write({"status": 1, "pushId": self._push_id, "message": messages})

    def _answer(self, reply: dict[str, Any]) -> bool:
        """Take the answer of a list; False if it is one of something else."""
        if not self._lists or "cmd" in reply:
            return False
        count = self._lists.popleft()
        results = reply.get("result")
        if reply["status"] != 1 or not results or len(results) != count:
            raise Hole(f"{self.name} sent {count} messages: {reply}")
        for result in results:
            client_id = self.unanswered.popleft().client_id
            number = int(result["msgId"])
            self._log.append(Answered(self.name, self.turn, client_id, "confirmed", number))
        return True

    def _resend(self) -> None:
        """Send again what was not answered, in lists of other lengths."""
        again = list(self.unanswered)
        while again:
            count = self._random.randint(1, LIST)
            self._send(again[:count])
            del again[:count]

    async def run(self) -> None:
        """Send and receive at full speed until the connection breaks."""
        while True:
            while len(self.unanswered) < UNANSWERED:
                fresh = [self._fresh() for _ in range(self._random.randint(1, LIST))]
                self.unanswered += fresh
                self._send(fresh)
            # The bound above keeps what is written small, so nothing waits for the peer to read.
            await self._next_reply()

    async def settle(self) -> None:
        """Receive until everything sent is confirmed."""
        while self.unanswered:
            await self._next_reply()

    async def _next_reply(self) -> None:
        async with asyncio.timeout(PATIENCE):
            reply = await self._read()
        if reply is not None and not self._answer(reply):
            raise Hole(f"{self.name} was sent {reply}")

    async def take_in(self) -> None:
        """Receive what waited at the restart, and have its acks committed."""
        async with asyncio.timeout(PATIENCE):
            while self.last < self._target:
                await self._next_reply()
        await self.fence()

    async def fence(self) -> None:
        """Have what was sent so far handled and committed."""
        reply = await self.request({"cmd": "ping"})
        if reply["status"] != 1:
            raise Hole(f"{self.name} pinged: {reply}")
        self._log.append(Fenced(self.name, self.turn))

    def _fresh(self) -> Pending:
        self._count += 1
        return Pending(f"{self.name}-{self._count}", f"{self.name} says {self._count}")

    # --- setting up -----------------------------------------------------------------------

    async def register(self, phone: str) -> None:
        """Make the account; the connection is logged in."""
        reply = await self.request({"cmd": "register", "phone": phone, "password": PASSWORD})
        self.user = reply["result"]["user"]["id"]

    async def start(self) -> None:
        """Make the device, and take off it what waits: notices of friendship."""
        reply = await self.request({"status": 1, "pushId": "", "message": "start"})
        self._push_id, left = reply["pushId"], reply["queued"]
        while left:
            frame = json.loads(await self._reader.readline())
            left -= len(frame["message"])
            self._write({"status": 1, "pushId": self._push_id, "message": "ok"})
        await self.request({"cmd": "ping"})


@dataclass
class Totals:
    """What all rounds came to."""

    rounds: int = 0
    report: Report = field(default_factory=Report)
    restarts: list[float] = field(default_factory=list)  # seconds until the server listened

    def add(self, report: Report) -> None:
        """Add the report of a round."""
        whole = self.report
        if report.lowest and report.lowest <= whole.highest:
            report.violations.append(f"I3: msgId {report.lowest} was used in an earlier round")
        whole.violations += report.violations
        whole.sent += report.sent
        whole.confirmed += report.confirmed
        whole.delivered += report.delivered
        whole.redelivered += report.redelivered
        whole.lost_acks += report.lost_acks
        whole.highest = max(whole.highest, report.highest)
        self.rounds += 1


class Campaign:
    """One server, its clients, and round after round."""

    def __init__(self, folder: Path, seed: int, life: tuple[float, float] = LIFE) -> None:
        self.server = Process(folder)
        self.totals = Totals()
        self._random = random.Random(seed)
        self._life = life
        self.log: list[Entry] = []  # of the round
        self._clients = [
            Crasher(f"client {number}", self.log, random.Random(seed + number))
            for number in range(1, CLIENTS + 1)
        ]

    async def set_up(self) -> None:
        """Start the server and make the pairs."""
        await asyncio.to_thread(self.server.start)
        for number, client in enumerate(self._clients):
            await client.connect(self.server.address)
            await client.register(str(13_800_000_000 + number))
        for one, other in zip(self._clients[::2], self._clients[1::2], strict=True):
            one.peer, other.peer = other.user, one.user
            await one.request({"cmd": "add_friend", "userId": one.peer})
            await other.request({"cmd": "accept_friend", "userId": other.peer})
        await self._all(Crasher.start)
        await self._all(Crasher.close)
        await self._reconnect()

    async def round(self, between: Between | None = None) -> Report:
        """Run one round and give what the checker says of it."""
        runs = [asyncio.create_task(until_broken(client)) for client in self._clients]
        await asyncio.sleep(self._random.uniform(*self._life))
        self.server.kill()
        await asyncio.gather(*runs)
        await self._all(Crasher.close)
        if between is not None:
            between(self.server.data)
        await self._start_again()
        try:
            await self._recover()
        except (Hole, TimeoutError, ConnectionError) as problem:
            report = Report([f"I1: {problem!r}"])
        else:
            report = check(self.log)
        self.totals.add(report)
        self._begin_log()
        return report

    async def _start_again(self) -> None:
        if self.totals.rounds % KILL_STARTS == KILL_STARTS - 1:
            starting = asyncio.create_task(asyncio.to_thread(self.server.start))
            await asyncio.sleep(self._random.uniform(*START_LIFE))
            self.server.kill()
            # It may have been up already.
            with contextlib.suppress(RuntimeError):
                await starting
        began = time.monotonic()
        await asyncio.to_thread(self.server.start)
        self.totals.restarts.append(time.monotonic() - began)

    async def _recover(self) -> None:
        """Answer what is unknown, then empty the queues; the third connection finds them so."""
        await self._reconnect()
        await self._all(Crasher.settle)
        await self._all(Crasher.close)
        await self._reconnect()
        await self._all(Crasher.take_in)
        await self._all(Crasher.close)
        await self._reconnect()

    async def _reconnect(self) -> None:
        async def one(client: Crasher) -> None:
            await client.connect(self.server.address)
            await client.restart()

        await self._all(one)

    async def _all(self, step: Callable[[Crasher], Awaitable[None]]) -> None:
        await asyncio.gather(*(step(client) for client in self._clients))

    def _begin_log(self) -> None:
        """Begin the next round's log with where the devices stand."""
        self.log.clear()
        for client in self._clients:
            client.begin_log()

    async def close(self) -> None:
        """Close the connections and end the server."""
        self.server.kill()
        await self._all(Crasher.close)


async def until_broken(client: Crasher) -> None:
    """Let a client send until its connection breaks."""
    with contextlib.suppress(ConnectionError):
        await client.run()


async def campaign(
    rounds: int, seconds: float, seed: int, life: tuple[float, float] = LIFE
) -> Totals:
    """Run rounds until their number or the time is reached, or there is a violation."""
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        crash = Campaign(Path(folder), seed, life)
        try:
            await crash.set_up()
            while crash.totals.rounds < rounds and time.monotonic() < deadline:
                report = await crash.round()
                if report.violations:
                    break
        finally:
            await crash.close()
        if "Traceback" in crash.server.log_text():
            crash.totals.report.violations.append("I8: a traceback in the log")
        return crash.totals


def figures(totals: Totals) -> dict[str, str | int]:
    """Give what the totals say."""
    report, times = totals.report, sorted(totals.restarts) or [0.0]
    return {
        "rounds": totals.rounds,
        "confirmed": f"{report.confirmed} messages in {report.sent} attempts",
        "delivered": f"{report.delivered}, {report.redelivered} of them again",
        "lost acks": report.lost_acks,
        "restart": f"{times[len(times) // 2]:.2f} s median, {times[-1]:.2f} s longest",
    }


def summary(totals: Totals) -> str:
    """Write the totals for people, the first violations first."""
    lines = totals.report.violations[:20]
    lines += [f"{name:<13} {value}" for name, value in figures(totals).items()]
    lines.append(f"{'violations':<13} {len(totals.report.violations)}")
    return "\n".join(lines)


def main() -> int:
    """Run from the command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.disk.crash", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    print(f"seed          {options.seed}")
    totals = asyncio.run(campaign(options.rounds, options.seconds, options.seed))
    print(summary(totals))
    record("crash", figures(totals), totals.report.violations)
    return 1 if totals.report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
