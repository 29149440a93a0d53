"""Our own client library on a bad network: what its user sees of the invariants.

    python -m tests.net.library --rounds 100

In a round two people, each with a `pushd.client.Client`, send each other numbered messages
through the proxy, whose connections end again and again; one of them is sometimes a process that
dies and comes again with its pushId. Then the network is good. A user sees:

    I1  what `send` returned for is yielded by `messages` at the other end
    I2  what is yielded was sent, and once
    I3  `send` of the same client_id gives the same msgId; nothing is yielded twice to one client
    I4  msgIds rise, and so do the numbers of a sender who waits for each confirmation
    I5  what was asked past does not come again to the next process

`send` may raise nothing but that the client is closed. Exit code 1 if a rule is broken.
"""

import argparse
import asyncio
import contextlib
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pushd import inbox
from pushd.client import Client, ClientClosed, Disconnected
from tests.conformance.process import Process
from tests.conformance.wire import PASSWORD, new_phone
from tests.model.record import conclude
from tests.net.proxy import DOWN, UP, Address, Faults, Proxy

MESSAGES = 40  # of each, in a round
AT_ONCE = 5  # of them on their way
PAUSE = 0.02  # seconds at most between two
PATIENCE = 30.0
# The library's seconds pass so many times as fast: it waits 1 s before it connects again.
HASTE = 50.0
HEARTBEAT = 2.0  # of these seconds
DEATHS = 0.5  # how often the one process dies in a round


def faults(rng: random.Random) -> Faults:
    """Draw what is wrong: every connection ends, in one way or another."""
    return Faults(
        latency=rng.choice((0, 0, 0.005)),
        jitter=rng.choice((0, 0.01)),
        slice=rng.choice((0, 0, 3, 100)),
        ending=rng.choice(("hole", "reset", "half-close")),
        way=rng.choice((UP, DOWN)),
        after=rng.uniform(0.02, 0.3),
        swallow=rng.choice((0, 0, 1, 3)),
        linger=rng.choice((0, 0, 0.1)),
    )


async def hurried(seconds: float) -> None:
    """Sleep for the library."""
    await asyncio.sleep(seconds / HASTE)


def hurried_clock() -> float:
    """Tell the library's time."""
    return time.monotonic() * HASTE


class Person:
    """Somebody with the library, and what they saw."""

    def __init__(self, name: str, push_id: str, rng: random.Random) -> None:
        self.name = name
        self.push_id = push_id
        self.peer = ""
        self.sent: dict[str, list[str]] = {}  # text -> the msgIds that it was confirmed with
        self.lives: list[list[tuple[int, str]]] = []  # msgId and text, by life of the process
        self.problems: list[str] = []
        self.client: Client
        self._random = rng
        self._came = asyncio.Event()
        self._reading: asyncio.Task[None]

    async def live(self, address: Address) -> None:
        """Begin a life of the process."""
        while True:
            self.client = Client(
                *address,
                push_id=self.push_id,
                heartbeat=HEARTBEAT,
                clock=hurried_clock,
                sleep=hurried,
                random=self._random.random,
                connect_timeout=0.5,
            )
            try:
                await self.client.open()
            except Exception:  # the first connection is tried once
                await self.client.close()
            else:
                break
        self.lives.append([])
        self._reading = asyncio.create_task(self._read(self.client, self.lives[-1]))

    async def _read(self, client: Client, seen: list[tuple[int, str]]) -> None:
        async for message in client.messages():
            seen.append((int(message.msg_id), message.text))
            self._came.set()

    async def die(self) -> None:
        """End the process, without a word to the server if the network wants it so."""
        await self.client.close()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading

    async def send_all(self) -> None:
        """Send the round's messages, some at a time, each until it is confirmed."""
        room = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with room:
                text = f"{self.name} {number}"
                while True:
                    try:
                        got = await self.client.send(self.peer, text, client_id=text)
                    except ClientClosed:
                        await asyncio.sleep(0.01)  # until the next life
                        continue
                    self.sent.setdefault(text, []).append(got)
                    break
                await asyncio.sleep(self._random.uniform(0, PAUSE))

        await asyncio.gather(*(one(number) for number in range(MESSAGES)))

    async def receive(self, other: "Person") -> None:
        """Wait until all that the other one sent has come."""
        while not {text for life in self.lives for _, text in life} >= other.sent.keys():
            self._came.clear()
            await self._came.wait()


def judge(reader: Person, writer: Person) -> list[str]:
    """Hold what a person saw against what the other one sent."""
    found: list[str] = []
    numbers: dict[str, set[int]] = {}
    for life in reader.lives:
        ids = [number for number, _ in life]
        if len(set(ids)) != len(ids):
            found.append(f"I3: {reader.name} was given a message twice")
        if ids != sorted(ids):
            found.append(f"I4: {reader.name} was given {ids}")
        for number, text in life:
            numbers.setdefault(text, set()).add(number)
    if reader.lives[-1]:
        found.append(f"I5: {reader.name} was given {reader.lives[-1]} once more")
    for text, confirmed in writer.sent.items():
        if len(set(confirmed)) > 1:
            found.append(f"I3: {text} was confirmed as {confirmed}")
        if text not in numbers:
            found.append(f"I1: {text} was confirmed and never came")
        elif numbers[text] != {int(confirmed[0])}:
            found.append(f"I2: {text} is {confirmed[0]}, and came as {numbers[text]}")
    found += [f"I2: {text} was not sent" for text in numbers.keys() - writer.sent.keys()]
    return found


class Round:
    """Two people and the network between them and the server."""

    def __init__(self, server: Process, seed: int) -> None:
        self._server = server
        self._random = random.Random(seed)
        self.proxy = Proxy(server.address, lambda: faults(self._random), seed)
        self.deaths = 0

    async def run(self) -> tuple[list[str], list[Person]]:
        """Run it; gives what was wrong, and the people."""
        one, other = people = await self._meet()
        try:
            async with asyncio.timeout(PATIENCE), self.proxy:
                await asyncio.gather(*(each.live(self.proxy.address) for each in people))
                sending = asyncio.gather(*(each.send_all() for each in people))
                await self._end_lives(one, sending)
                await sending
                # From now on the network is good.
                self.proxy.choose = Faults
                await one.receive(other)
                await other.receive(one)
                for each in people:
                    await self._look_once_more(each)
        except TimeoutError:
            missing = [each.name for each in people if not each.lives[-1]]
            return [f"I1: not all came in {PATIENCE:.0f} s: {missing}"], people
        finally:
            for each in people:
                await each.die()
        return [*judge(one, other), *judge(other, one)], people

    async def _meet(self) -> list[Person]:
        """Make two friends whose devices' queues are empty."""
        people: list[Person] = []
        async with contextlib.AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(Client.connect(*self._server.address))
                for _ in range(2)
            ]
            for client in clients:
                await client.register(new_phone(), PASSWORD)
            await clients[0].command("add_friend", userId=clients[1].user_id)
            await clients[1].command("accept_friend", userId=clients[0].user_id)
            for name, client, peer in zip(("one", "other"), clients, clients[::-1], strict=True):
                async for _ in client.messages():
                    break
                # Asking once more acks the notice that this person got.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.01):
                        async for _ in client.messages():
                            break
                await client.command("ping")
                people.append(Person(name, client.push_id, self._random))
                people[-1].peer = peer.user_id
        return people

    async def _end_lives(self, person: Person, sending: "asyncio.Future[list[None]]") -> None:
        """Have the process of one person die now and then, while there is something to send."""
        while not sending.done():
            await asyncio.sleep(self._random.uniform(0.05, 0.5))
            if self._random.random() < DEATHS and not sending.done():
                self.deaths += 1
                await person.die()
                await person.live(self.proxy.address)

    async def _look_once_more(self, person: Person) -> None:
        """Have all acked, and look what the next process is given."""
        client = person.client
        for _ in range(2):
            await retried(client)
        await person.die()
        await person.live(self._server.address)
        for _ in range(2):
            await retried(person.client)


async def retried(client: Client) -> None:
    """Ping until it is answered."""
    while True:
        with contextlib.suppress(Disconnected):
            await client.command("ping")
            return


async def campaign(rounds: int, seed: int, server: Process) -> tuple[Counter[str], list[str]]:
    """Run rounds until their number is reached or a rule is broken."""
    counts: Counter[str] = Counter()
    violations: list[str] = []
    while counts["rounds"] < rounds and not violations:
        own = seed + counts["rounds"]
        one = Round(server, own)
        found, people = await one.run()
        violations += [f"seed {own}: {text}" for text in found]
        counts["rounds"] += 1
        counts["processes that died"] += one.deaths
        counts["messages confirmed"] += sum(len(each.sent) for each in people)
        counts["connections broken"] += sum(
            count for kind, count in one.proxy.hits.items() if kind != "lingered"
        )
    return counts, violations


async def everything(rounds: int, seed: int) -> tuple[Counter[str], list[str], list[str]]:
    """Run the rounds, and the control."""
    with tempfile.TemporaryDirectory() as folder:
        server = Process(Path(folder))
        await asyncio.to_thread(server.start)
        try:
            counts, violations = await campaign(rounds, seed, server)
            with forgetful():
                _, caught = await campaign(50, seed, server)
        finally:
            server.kill()
    return counts, violations, caught


@contextlib.contextmanager
def forgetful() -> Iterator[None]:
    """Control: a library that does not know which messages its user has had."""
    kept = inbox.MAX_SEEN
    inbox.MAX_SEEN = 1
    try:
        yield
    finally:
        inbox.MAX_SEEN = kept


def main() -> int:
    """Run from the command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.net.library", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    print(f"seed {options.seed}, load {os.getloadavg()[0]:.1f}")
    counts, violations, caught = asyncio.run(everything(options.rounds, options.seed))
    found = f"caught: {caught[0]}" if caught else "not caught"
    controls = {"the library forgets what was had": found}
    return conclude("net-library", counts, violations, controls)


if __name__ == "__main__":
    sys.exit(main())
