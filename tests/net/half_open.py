"""Clients that are gone without a word: reaped in time, offline, and their messages kept.

    python -m tests.net.half_open --clients 100 --cycles 1000

Three ways to go: a close of which the kernel tells nobody (TCP_REPAIR), a network cable that is
pulled, and routes into nothing; the last two while messages are written to them. Each of so many
clients must be closed within 1.5 x its heartbeat, give or take a tenth; a friend is told that it
is offline then; what it had not acked comes at its next restart, with the same seqs and msgIds.
The cycles are restarts that end silently: neither descriptors nor tasks nor memory may grow.
Exit code 1 if something is not so.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from tests.conformance.people import make_friends
from tests.conformance.wire import Address, Frame, Wire, text
from tests.model.record import conclude
from tests.net.namespace import Namespace, Unavailable
from tests.net.variants import PATIENT, Holdings, Watched, serving

HEARTBEAT = 8  # seconds, so that a tenth of 1.5 x that is more than a sweep
TOLERANCE = 0.1
WAITING = 5  # messages that nobody acks
WHILE_GONE = 3  # more of them, where writing to the dead end tells the server nothing
AT_ONCE = 50  # cycles
CYCLE_HEARTBEAT = 1
SPARE_MEMORY = 4 << 20


@dataclass
class Outcome:
    """What a way to go came to."""

    ends: list[float] = field(default_factory=list)  # seconds from the last line to the close
    problems: list[str] = field(default_factory=list)


class Victim:
    """A client that will be gone."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.user_id = wire.user_id
        self.rows: list[Frame] = []  # messages that must come again
        self.last_line = 0.0
        self.offline = 0.0  # when a friend was told


class Friend:
    """The one who writes to them all, and is told who is there."""

    def __init__(self, wire: Wire, victims: list[Victim]) -> None:
        self.wire = wire
        self.victims = {each.user_id: each for each in victims}

    async def post(self, victim: Victim, count: int) -> None:
        """Send some messages to one of them."""
        start = len(victim.rows)
        messages = [text(victim.user_id, f"{start + n}") for n in range(count)]
        victim.rows += await self.wire.post(*messages)

    async def watch(self, seconds: float) -> None:
        """Take in who goes offline, until all have or the time is over."""
        deadline = time.monotonic() + seconds
        beat = asyncio.create_task(self._live())
        try:
            while not all(each.offline for each in self.victims.values()):
                self._note(await self.wire.recv(deadline - time.monotonic()))
        except TimeoutError:
            pass
        finally:
            beat.cancel()

    async def _live(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT)
            await self.wire.send_raw(b"\n")

    def _note(self, received: Frame) -> None:
        event = received.get("event", {})
        victim = self.victims.get(str(event.get("userId", "")))
        if event.get("name") == "presence" and not event["online"] and victim is not None:
            victim.offline = victim.offline or time.monotonic()


async def crowd(server: Watched, count: int) -> Friend:
    """Make one account with a device, and its friends, whose queues are empty."""
    main = await server.dial.user()
    wires = [await server.dial.user() for _ in range(count)]
    await make_friends(main, *wires)
    for wire in (main, *wires):
        await wire.drain((await wire.start())["queued"])
    await main.ok("ping")
    again, _ = await server.dial.resume(main.push_id, accept=["presence"])
    return Friend(again, [Victim(wire) for wire in wires])


# Opens a connection that can be made to vanish.
Dial = Callable[[], Awaitable[Wire]]


async def vanishing(
    server: Watched,
    friend: Friend,
    dial: Dial,
    heartbeat: int,
    go: Callable[[list[Wire]], None],
    come: Callable[[], None],
    *,
    write: bool,
    tolerance: float = TOLERANCE,
) -> Outcome:
    """Have all victims go at once, and look what becomes of them."""
    outcome, due = Outcome(), 1.5 * heartbeat
    victims = list(friend.victims.values())

    async def begin(victim: Victim) -> None:
        victim.rows, victim.offline = [], 0.0
        push_id = victim.wire.push_id
        victim.wire = await dial()
        await victim.wire.restart(push_id, heartbeat=heartbeat)

    await asyncio.gather(*map(begin, victims))
    for victim in victims:
        await friend.post(victim, WAITING)
    for victim in victims:
        await victim.wire.expect_delivery(WAITING)
    # So that nobody's old offline is taken for the one to come.
    await friend.wire.fence()
    friend.wire.pushed.clear()
    for victim in victims:
        await victim.wire.heartbeat()
        victim.last_line = time.monotonic()
    go([victim.wire for victim in victims])
    if write:
        for victim in victims:
            await friend.post(victim, WHILE_GONE)
    await friend.watch(1.5 * due)
    come()
    for victim in victims:
        if not victim.offline:
            outcome.problems.append(f"{victim.user_id} is still online after {1.5 * due:.1f} s")
            continue
        outcome.ends.append(victim.offline - victim.last_line)
        outcome.problems += await kept(server, victim)
    outcome.problems += [
        f"due after {due:.1f} s, closed after {end:.2f} s"
        for end in outcome.ends
        if abs(end - due) > tolerance * due
    ]
    return outcome


async def kept(server: Watched, victim: Victim) -> list[str]:
    """Take the device up again; gives what is wrong with its queue."""
    wire, reply = await server.dial.resume(victim.wire.push_id)
    victim.wire.close()
    victim.wire = wire
    got = await wire.drain(reply["queued"])
    expected = [row["msgId"] for row in victim.rows]
    if [each["msgId"] for each in got] != expected:
        return [f"{victim.user_id} got {len(got)} of {len(expected)} messages"]
    seqs = [each["seq"] for each in got]
    return [] if seqs == list(range(seqs[0], seqs[0] + len(seqs))) else [f"holes: {seqs}"]


def vanish(wires: list[Wire]) -> None:
    """Close all without a word."""
    for wire in wires:
        wire.vanish()


async def silently(server: Watched, friend: Friend, heartbeat: int = HEARTBEAT) -> Outcome:
    """Close without a word. Nothing is written meanwhile: this machine would answer by a reset."""
    return await vanishing(
        server, friend, server.dial, heartbeat, vanish, lambda: None, write=False
    )


async def cut_off(
    server: Watched,
    friend: Friend,
    there: Namespace,
    how: str,
    heartbeat: int = HEARTBEAT,
    tolerance: float = TOLERANCE,
) -> Outcome:
    """Lose the network: "pull" the cable, or "lose" the route."""

    async def dial() -> Wire:
        sock = there.socket()
        address: Address = (there.host, server.address[1])
        await asyncio.get_running_loop().sock_connect(sock, address)
        return Wire(sock)

    go, come = (there.pull, there.plug) if how == "pull" else (there.lose, there.find)
    return await vanishing(
        server,
        friend,
        dial,
        heartbeat,
        lambda _: go(),
        come,
        write=True,
        tolerance=tolerance,
    )


async def cycles(server: Watched, friend: Friend, count: int) -> tuple[Holdings, Holdings]:
    """Restart and vanish so often; gives what the server held before and after."""
    victims = list(friend.victims.values())[:AT_ONCE]

    async def turn(victim: Victim) -> None:
        wire = await server.dial()
        await wire.restart(victim.wire.push_id, heartbeat=CYCLE_HEARTBEAT)
        wire.vanish()
        await asyncio.sleep(0)

    async def turns(rounds: int) -> Holdings:
        for _ in range(rounds):
            await asyncio.gather(*map(turn, victims))
        # Until the last ones are reaped.
        deadline = time.monotonic() + 10 * CYCLE_HEARTBEAT
        while True:
            held = await server.holdings()
            if held.connections <= 1 or time.monotonic() > deadline:
                return held
            await asyncio.sleep(0.2)

    for victim in friend.victims.values():
        victim.wire.close()
    before = await turns(1)
    return before, await turns(max(1, count // len(victims)))


def grown(before: Holdings, after: Holdings) -> list[str]:
    """Tell what has grown."""
    found = [
        f"{name} grew from {was} to {now}"
        for name, was, now in zip(Holdings._fields, before, after, strict=True)
        if name != "memory" and now > was
    ]
    if after.memory > before.memory + SPARE_MEMORY:
        found.append(f"memory grew by {(after.memory - before.memory) / 2**20:.1f} MiB")
    return found


def running(program: str = "", host: str = "127.0.0.1") -> AbstractContextManager[Watched]:
    """Run a server in which clients may ask for any heartbeat."""
    return serving(lambda folder: Watched(folder, program, host, limits_heartbeat_min=1))


async def control() -> list[str]:
    """Run against a server that reaps nobody."""
    with running(PATIENT) as server:
        friend = await crowd(server, 3)
        return (await silently(server, friend, 1)).problems


async def everything(clients: int, count: int) -> tuple[dict[str, Outcome], list[str], list[str]]:
    """Go in all ways, then in circles, then run the control."""
    outcomes: dict[str, Outcome] = {}
    with running(host="0.0.0.0") as server:
        friend = await crowd(server, clients)
        outcomes["silent close"] = await silently(server, friend)
        with contextlib.suppress(Unavailable), Namespace() as there:
            for how, name in (("pull", "cable pulled"), ("lose", "blackhole route")):
                outcomes[name] = await cut_off(server, friend, there, how)
        before, after = await cycles(server, friend, count)
    print(f"before {before}\nafter  {after}")
    return outcomes, grown(before, after), await control()


def main() -> int:
    """Run from the command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.net.half_open", description=__doc__)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--cycles", type=int, default=1000)
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}")
    outcomes, leaks, caught = asyncio.run(everything(options.clients, options.cycles))
    figures: dict[str, str | int | float] = {"silent cycles without growth": options.cycles}
    violations = list(leaks)
    for name, outcome in outcomes.items():
        ends = sorted(outcome.ends) or [0.0]
        shown = f"{len(outcome.ends)}, {ends[0]:.2f} to {ends[-1]:.2f} s of {1.5 * HEARTBEAT} s"
        figures[f"reaped after {name}"] = shown
        violations += [f"{name}: {problem}" for problem in outcome.problems]
    found = f"caught: {caught[0]}" if caught else "not caught"
    return conclude("net-half-open", figures, violations, {"nobody is reaped": found})


if __name__ == "__main__":
    sys.exit(main())
