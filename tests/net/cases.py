"""Reports about other servers, tried here at random points: replay, breaks, lost confirmations.

    python -m tests.net.cases --points 50

    replay      a device with 2,000 messages takes them over 20 connections, while three people
                send 300 more
    breaks      of 30 messages some are read and 5 acked, then the connection ends: by FIN, reset,
                without a word, by a kill of the server, by SIGTERM; so many times each
    retries     a confirmation that is lost, and the same frame on two devices at once, after a
                kill, two days later, with another text, by somebody else, and among new ones

What must hold stands in each; exit code 1 if it does not.
"""

import argparse
import asyncio
import contextlib
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager

from tests.conformance.people import at_once, make_friends, users
from tests.conformance.wire import Closed, Frame, Wire, content, frame, text
from tests.model.record import conclude
from tests.net.proxy import Faults, Proxy
from tests.net.variants import DAYS_LATER, FORGETFUL, Variant, Watched, serving

QUEUED = 2000
MORE = 100  # of each of three
CUTS = 20
LONG = "x" * 9000  # so that 30 messages are several packets
ENDS = ("close", "abort", "vanish", "kill", "term")


async def replay(server: Variant, rng: random.Random) -> int:
    """Take a long queue over many connections while it grows; gives how many came."""
    b, *senders = await users(server.dial, 4)
    await make_friends(b, *senders)
    await b.drain((await b.start())["queued"])
    b.close()
    for start in range(0, QUEUED, 100):
        await senders[0].post(*(text(b.user_id, f"0 {start + n}") for n in range(100)))
    seen: dict[int, Frame] = {}

    async def send(number: int, sender: Wire) -> None:
        for start in range(0, MORE, 5):
            first = start + (QUEUED if number == 0 else 0)
            await sender.post(*(text(b.user_id, f"{number} {first + n}") for n in range(5)))

    async def take(stop: int) -> None:
        """Take until so many are acked; the end may come anywhere."""
        wire, _ = await server.dial.resume(b.push_id)
        while acked() < stop:
            for message in (await wire.packet())["message"]:
                known = seen.setdefault(message["seq"], message)
                assert known == message, f"{known} came again as {message}"
            # What is the last packet of all must be acked, for none follows it.
            if rng.random() < 0.9 or len(seen) >= stop:
                await wire.ack(max(seen))
                done[0] = max(seen)
        await rng.choice((wire.fence, nothing))()
        rng.choice((wire.close, wire.abort))()

    done = [0]
    base: list[int] = []

    def acked() -> int:
        if not base and seen:
            base.append(min(seen) - 1)
        return done[0] - base[0] if base else 0

    everything = QUEUED + 3 * MORE
    sending = asyncio.gather(*(send(number, each) for number, each in enumerate(senders)))
    for stop in sorted(rng.sample(range(1, everything), CUTS)):
        await take(stop)
    await sending
    await take(everything)
    seqs = sorted(seen)
    assert seqs == list(range(seqs[0], seqs[0] + everything)), "a hole, or too many"
    by_sender: dict[str, list[int]] = {}
    for seq in seqs:
        sender, number = content(seen[seq]).split()
        by_sender.setdefault(sender, []).append(int(number))
    assert all(numbers == sorted(numbers) for numbers in by_sender.values()), "out of order"
    for sender in by_sender:
        ids = [int(each["msgId"]) for each in seen.values() if content(each)[0] == sender]
        assert len(set(ids)) == len(ids), "one message twice"
    return len(seen)


async def nothing() -> None:
    """Do nothing."""


async def breaks(server: Variant, end: str, points: int, rng: random.Random) -> int:
    """Have connections end while messages are on their way; gives how many ends."""
    a, b = await server.dial.pair()
    for _ in range(points):
        read = rng.choice((0, 1, 17, 30, rng.randrange(31)))
        acked = min(5, read)
        b.close()
        rows = await a.post(*(text(b.user_id, f"{n} {LONG}") for n in range(30)))
        b, reply = await server.dial.resume(b.push_id)
        got: list[Frame] = []
        while len(got) < read:
            got += (await b.packet())["message"]
        if acked:
            await b.ack(reply["first"] + acked - 1)
        await b.fence()
        if end == "kill":
            server.restart()
        elif end == "term":
            server.stop()
            server.start()
        else:
            getattr(b, end)()
        push_id = b.push_id
        if end in ("kill", "term"):
            b.close()
            a, _ = await server.dial.resume(a.push_id)
        b, reply = await server.dial.resume(push_id)
        rest = await b.drain(reply["queued"])
        assert [each["msgId"] for each in rest] == [row["msgId"] for row in rows[acked:]]
        assert rest[: len(got) - acked] == got[acked:], "not the same as before"
    return points


async def retries(server: Variant) -> int:
    """Lose a confirmation and send again, in all ways; gives how many retries."""
    a, b = await server.dial.pair()
    other = await server.dial.device(a)
    first, second = text(b.user_id, "x", clientId="cid-1"), text(b.user_id, "y", clientId="cid-2")
    async with Proxy(server.address, lambda: Faults(swallow=1)) as proxy:
        there = Variant(server.folder)  # never started: it is dialled by way of the proxy
        there.address = proxy.address
        wire = await there.dial()
        await wire.restart(a.push_id)
        await wire.send_line(frame([first]))
        with contextlib.suppress(ConnectionError, Closed):
            await wire.reply()
        wire.close()
        assert proxy.hits["swallowed"] == 1
    a, _ = await server.dial.resume(a.push_id)
    [row] = await a.post(first)
    replies = await at_once((a, frame([second])), (other, frame([second])))
    rows = [reply["result"][0]["msgId"] for reply in replies]
    assert rows[0] == rows[1], rows
    server.restart()
    a, _ = await server.dial.resume(a.push_id)
    assert (await a.post(first))[0]["msgId"] == row["msgId"], "after a kill"
    server.program = DAYS_LATER
    server.restart()
    a, _ = await server.dial.resume(a.push_id)
    assert (await a.post(first))[0]["msgId"] == row["msgId"], "two days later"
    await a.refused(4003, frame([text(b.user_id, "another text", clientId="cid-1")]))
    c = await server.dial.user()
    b, _ = await server.dial.resume(b.push_id)
    await make_friends(b, c)
    [its] = await c.post(text(b.user_id, "z", clientId="cid-1"))
    assert its["msgId"] != row["msgId"], "somebody else's is their own"
    fresh = [text(b.user_id, f"new {n}") for n in range(3)]
    five = await a.post(first, fresh[0], second, *fresh[1:])
    assert [five[0]["msgId"], five[2]["msgId"]] == [row["msgId"], rows[0]], five
    await b.fence()
    got: list[str] = []
    while len(got) < 6:
        packet = (await b.packet())["message"]
        await b.ack()
        got += [content(each) for each in packet if each["type"] == "1"]
    await b.fence()
    assert not b.pushed, "more than was sent"
    assert got == ["x", "y", "z", "new 0", "new 1", "new 2"], got
    return 7


def running(program: str = "") -> AbstractContextManager[Watched]:
    """Run a server."""
    return serving(lambda folder: Watched(folder, program))


Case = Callable[[], Awaitable[int]]


async def everything(points: int, seed: int) -> AsyncIterator[tuple[str, str]]:
    """Run all cases; gives of each its name and how often it was tried, or what was wrong."""
    rng = random.Random(seed)
    with running() as server:
        cases: dict[str, Case] = {"messages in a replay that grows": lambda: replay(server, rng)}
        for end in ENDS:
            cases[f"breaks by {end}"] = lambda end=end: breaks(server, end, points, rng)
        cases["retries"] = lambda: retries(server)
        for name, case in cases.items():
            yield name, await tried(case)
    with running(FORGETFUL) as server:
        yield "control", await tried(lambda: retries(server))


async def tried(case: Case) -> str:
    """Run one case."""
    try:
        return str(await case())
    except (AssertionError, TimeoutError, OSError, EOFError) as problem:
        return f"{problem!r}"[:300]


async def run(points: int, seed: int) -> dict[str, str]:
    """Run all cases and show each."""
    found: dict[str, str] = {}
    async for name, outcome in everything(points, seed):
        print(f"{name}: {outcome}", flush=True)
        found[name] = outcome
    return found


def main() -> int:
    """Run from the command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.net.cases", description=__doc__)
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    print(f"seed {options.seed}, load {os.getloadavg()[0]:.1f}")
    found = asyncio.run(run(options.points, options.seed))
    control = found.pop("control")
    caught = "not caught" if control.isdigit() else f"caught: {control}"
    wrong = [f"{name}: {what}" for name, what in found.items() if not what.isdigit()]
    figures = {name: int(what) for name, what in found.items() if what.isdigit()}
    return conclude("net-cases", figures, wrong, {"no clientId is known": caught})


if __name__ == "__main__":
    sys.exit(main())
