"""Clients on a bad network: sessions through the proxy, and lost confirmations.

    python -m tests.net.sessions --sessions 1000 --swallow 1000

In a session four devices of three accounts send and receive through the proxy, each over one to
three connections with faults that the seed draws (`tests.net.proxy`): late, slow, sliced, one way
silent, reset, half closed, a reply lost, the server not told of a hang-up. Then the network is
good: what was not answered is sent again with its clientId, what waits is taken in, and what all
saw is a log for `tests.model.checker`. `--swallow` runs sessions in which nothing is wrong but
that replies are lost, until so many confirmations have been. Exit code 1 if a rule is broken.
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pushd.status import Status
from tests.conformance.process import Process
from tests.conformance.wire import new_phone
from tests.disk.crash import PASSWORD, PATIENCE, Crasher, Hole
from tests.model.checker import Answered, Entry, Fenced, Report, check
from tests.model.record import record
from tests.net.proxy import DOWN, UP, Faults, Proxy
from tests.net.variants import FORGETFUL, Variant

AT_ONCE = 6  # sessions
# Seconds that a bad connection lasts at most, and that one may whose reply will be lost.
SPELL = (0.05, 0.4)
SWALLOW_SPELL = 5.0
UNANSWERED = 20  # messages at most
LIST = 5
PAUSE = 0.01  # seconds at most between two lists
FENCES = 0.1  # how many of the steps are a command
# A connection that hung up may still be taken for the device's own, so good ones are tried again.
TRIES = 5


class Roamer(Crasher):
    """A client of the crash run, on a network that comes and goes."""

    def __init__(
        self, name: str, log: list[Entry], rng: random.Random, cut: Callable[[], bool]
    ) -> None:
        super().__init__(name, log, rng)
        self._cut = cut  # tells whether a way to the server was ended, maybe within a line

    async def close(self) -> None:
        """Cut the connection; unknown is what was sent on it, which may be nothing."""
        sent = list(self.unanswered)[: sum(self._lists)]
        self._lists.clear()
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        for pending in sent:
            self._log.append(Answered(self.name, self.turn, pending.client_id, "unknown"))

    async def _read(self) -> dict[str, Any] | None:
        frame = await super()._read()
        # An older connection of ours was heard later: as good as broken.
        if frame is not None and "event" in frame:
            raise ConnectionResetError
        # What comes before an end of input counts as a line, also a part of one.
        if frame is not None and frame["status"] == Status.MALFORMED and self._cut():
            raise ConnectionResetError
        return frame

    async def run(self) -> None:
        """Send and receive with pauses until the connection breaks."""
        while True:
            if len(self.unanswered) < UNANSWERED:
                fresh = [self._fresh() for _ in range(self._random.randint(1, LIST))]
                self.unanswered += fresh
                self._send(fresh)
            if self._random.random() < FENCES:
                await self.fence()
            else:
                await self._next_reply()
            await asyncio.sleep(self._random.uniform(0, PAUSE))

    async def fence(self) -> None:
        """Have what was sent so far handled and committed."""
        acked = self._acked
        reply = await self.request({"cmd": "ping"})
        if reply["status"] != 1:
            raise Hole(f"{self.name} pinged: {reply}")
        # It says nothing of acks of what came in meanwhile.
        if self._acked == acked:
            self._log.append(Fenced(self.name, self.turn))

    async def enter(self, phone: str) -> None:
        """Log in as an account that is there."""
        reply = await self.request({"cmd": "login", "phone": phone, "password": PASSWORD})
        self.user = reply["result"]["user"]["id"]


# Gives the faults of one connection.
Choose = Callable[[random.Random], Faults]


def anything(rng: random.Random) -> Faults:
    """Draw faults: most connections are a little late or sliced, and most end badly."""
    return Faults(
        latency=rng.choice((0, 0, 0.002, 0.02)),
        jitter=rng.choice((0, 0.005, 0.03)),
        rate=rng.choice((0, 0, 20_000, 200_000)),
        slice=rng.choice((0, 1, 7, 100, 2000)) if rng.random() < 0.5 else 0,
        ending=rng.choice(("", "hole", "hole", "reset", "half-close")),
        way=rng.choice((UP, DOWN)),
        after=rng.uniform(0, SPELL[1]),
        swallow=rng.choice((0, 0, 1, 2, 5)),
        linger=rng.choice((0, 0, 0.1, 0.3)),
    )


def lost_replies(rng: random.Random) -> Faults:
    """Draw which reply is lost, and whether the server hears of the end."""
    return Faults(swallow=rng.choice((1, 1, 2, 3)), linger=rng.choice((0, 0, 0.05)))


class Session:
    """One seeded session with accounts of its own."""

    def __init__(
        self, server: Process, seed: int, choose: Choose, spell: tuple[float, float]
    ) -> None:
        self._address = server.address
        self._random = random.Random(seed)
        self._spell = spell
        self.log: list[Entry] = []
        self.proxy = Proxy(server.address, lambda: choose(self._random), seed)
        names = ("one", "other", "second device", "third")
        self._clients = [Roamer(name, self.log, self._random, self._cut) for name in names]

    def _cut(self) -> bool:
        return self.proxy.hits["half-close up"] > 0

    async def run(self) -> Report:
        """Run it and give what the checker says of it."""
        try:
            async with asyncio.timeout(4 * PATIENCE):
                await self._set_up()
                async with self.proxy:
                    await self._all(self._wander)
                await self._all(lambda client: self._calmly(client, client.settle))
                await self._all(lambda client: self._calmly(client, client.take_in))
                # The last thing each sees is that nothing waits.
                await self._all(lambda client: self._calmly(client, nothing))
        except (Hole, TimeoutError, ConnectionError) as problem:
            return Report([f"I8: {problem!r}"])
        finally:
            for client in self._clients:
                with contextlib.suppress(AttributeError):
                    await client.close()
        return check(self.log)

    async def _set_up(self) -> None:
        one, other, second, third = self._clients
        phone = new_phone()
        for client in self._clients:
            await client.connect(self._address)
        await one.register(phone)
        await second.enter(phone)
        for client, peer in ((other, one), (third, second)):
            await client.register(new_phone())
            client.peer, peer.peer = peer.user, client.user
            await client.request({"cmd": "add_friend", "userId": client.peer})
            await one.request({"cmd": "accept_friend", "userId": peer.peer})
        for client in self._clients:
            await client.start()
            await client.close()
        # The devices' notices are off their queues: the log begins.
        await self._all(lambda client: self._calmly(client, client.fence))

    async def _all(self, step: Callable[[Roamer], Awaitable[None]]) -> None:
        await asyncio.gather(*(step(client) for client in self._clients))

    async def _wander(self, client: Roamer) -> None:
        """Have some bad connections, one after the other."""
        for _ in range(self._random.randint(1, 3)):
            with contextlib.suppress(OSError):  # TimeoutError is one
                async with asyncio.timeout(self._random.uniform(*self._spell)):
                    await client.connect(self.proxy.address)
                    await client.restart()
                    await client.run()
            await client.close()

    async def _calmly(self, client: Roamer, step: Callable[[], Awaitable[None]]) -> None:
        """Do something on a good connection."""
        for left in reversed(range(TRIES)):
            await client.connect(self._address)
            try:
                await client.restart()
                await step()
            except ConnectionError:
                if not left:
                    raise
            else:
                return
            finally:
                await client.close()


async def nothing() -> None:
    """Do no more than connect."""


@dataclass
class Totals:
    """What all sessions came to."""

    sessions: int = 0
    hits: Counter[str] = field(default_factory=Counter)
    report: Report = field(default_factory=Report)
    seed: int = 0  # of the session with the first violation

    def add(self, session: Session, report: Report, seed: int) -> None:
        """Add a session."""
        self.sessions += 1
        self.hits += session.proxy.hits
        whole = self.report
        if report.violations and not whole.violations:
            self.seed = seed
        whole.violations += [f"seed {seed}: {text}" for text in report.violations]
        whole.sent += report.sent
        whole.confirmed += report.confirmed
        whole.delivered += report.delivered
        whole.redelivered += report.redelivered
        whole.lost_acks += report.lost_acks


async def run(
    server: Process,
    choose: Choose,
    seed: int,
    enough: Callable[[Totals], bool],
    spell: tuple[float, float] = SPELL,
) -> Totals:
    """Run sessions, some at a time, until it is enough or one found a violation."""
    totals = Totals()
    seeds = itertools.count(seed)

    async def worker() -> None:
        while not (enough(totals) or totals.report.violations):
            own = next(seeds)
            session = Session(server, own, choose, spell)
            totals.add(session, await session.run(), own)

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    return totals


async def lose_replies(server: Process, count: int, seed: int) -> Totals:
    """Lose so many confirmations, each of which is followed by a retry."""
    spell = (SWALLOW_SPELL, SWALLOW_SPELL)
    return await run(server, lost_replies, seed, lambda t: t.hits["swallowed"] >= count, spell)


async def control(folder: Path, seed: int) -> Report:
    """Run against a server that knows no clientId."""
    server = Variant(folder, FORGETFUL, limits_friend_requests=1_000_000)
    await asyncio.to_thread(server.start)
    try:
        return (await lose_replies(server, 20, seed)).report
    finally:
        server.kill()


def summary(name: str, totals: Totals) -> str:
    """Write the totals for people, the first violations first."""
    report = totals.report
    hits = ", ".join(f"{count} {kind}" for kind, count in sorted(totals.hits.items()))
    return "\n".join(
        [
            *report.violations[:20],
            f"{name}: {totals.sessions} sessions; {hits}",
            f"  confirmed {report.confirmed} messages in {report.sent} attempts",
            f"  delivered {report.delivered}, {report.redelivered} of them again",
            f"  violations {len(report.violations)}",
        ]
    )


async def everything(sessions: int, swallow: int, seed: int) -> tuple[Totals, Totals, Report]:
    """Run both kinds of sessions, then the control."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("server", "control"):
            (Path(folder) / name).mkdir()
        server = Process(Path(folder) / "server")
        await asyncio.to_thread(server.start)
        try:
            bad = await run(server, anything, seed, lambda t: t.sessions >= sessions)
            lost = await lose_replies(server, swallow, seed)
        finally:
            server.kill()
        if "Traceback" in server.log_text():
            bad.report.violations.append("I8: a traceback in the log")
        return bad, lost, await control(Path(folder) / "control", seed)


def main() -> int:
    """Run from the command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.net.sessions", description=__doc__)
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--swallow", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    print(f"seed {options.seed}, load {os.getloadavg()[0]:.1f}")
    began = time.monotonic()
    bad, lost, caught = asyncio.run(everything(options.sessions, options.swallow, options.seed))
    print(summary("bad networks", bad))
    print(summary("lost confirmations", lost))
    found = f"caught: {caught.violations[0]}" if caught.violations else "not caught"
    print(f"control without clientIds: {found}")
    print(f"{time.monotonic() - began:.0f} s")
    violations = [*bad.report.violations, *lost.report.violations]
    figures: dict[str, str | int | float] = {
        "sessions": bad.sessions,
        **{f"connections {kind}": count for kind, count in bad.hits.items()},
        "messages confirmed": bad.report.confirmed,
        "attempts": bad.report.sent,
        "lost confirmations": lost.hits["swallowed"],
        "of them doubled": len(lost.report.violations),
    }
    record("net-sessions", figures, violations, {"no clientId is known": found})
    return 1 if violations or not caught.violations else 0


if __name__ == "__main__":
    sys.exit(main())
