"""The workloads: what each one sets up, does and measures.

A workload is a row of `WORKLOADS`. Its accounts are made once; each run then finds a fresh process
and just these accounts, so that what earlier runs left in memory or on the disk is not measured.
A run ends when all that it sent is confirmed, delivered and acked; it fails if more was delivered.

Figures go by names that `report.MEASURES` explains.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

from .flow import SENT_MAX, Pairs, finish, percentile, send_at_rate, send_for
from .load import (
    HEARTBEAT,
    HEARTBEAT_FRAME,
    Address,
    Connection,
    LoadFailed,
    Receiver,
    Sender,
    Tally,
    Uploader,
    dial,
    in_turns,
    now,
    resume,
)
from .people import Person, log_in, make_away, make_groups, make_pairs, make_people
from .process import Server

Figures = dict[str, float]

_Connection = TypeVar("_Connection", bound=Connection)

# Sizes
PAIRS = 50
LIST = 20  # messages of a list in W1L
RATE = 1000  # messages a second in W2
IDLE = 5000  # connections in W3
WARM = 100  # connections that come and go before the baseline of W3
WAITING = 10_000  # messages in W4
GROUP = 500  # members in W5, all online
CROWD = 5000  # members in W5P, of which few are online
CROWD_ONLINE = 250
CROWD_RATE = 20  # messages a second to them
BESIDE_RATE = 200  # messages a second of the pair beside them
FILE = 16 * 1024 * 1024  # bytes, in W5F
UPLOAD_STEP = 0.05  # seconds
SIZES = (10, 100, 1000, 5000)  # members of the groups in W5N
EACH_SIZE = 20  # messages to each of them
AWAY_CHATS = 500  # in W7
AWAY_EACH = 100  # unread messages of each of them
RESTARTS = 3000  # in W6; more would use up the ports of the loopback in a few runs
RESTARTS_AT_ONCE = 10
BEATS_MAX = 100_000  # heartbeats in a run of W9

# Times, in seconds
BEAT = 0.01
QUIET = 2.0  # of the heartbeats without any load
SETTLE = 2.0  # before memory is read

AT_ONCE = 20  # connections that are opened at a time


@dataclass
class Cast:
    """The accounts of a workload."""

    pairs: list[tuple[Person, Person]] = field(default_factory=list)
    people: list[Person] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)  # of which the first of `people` is the owner

    @property
    def everybody(self) -> list[Person]:
        """All of them."""
        return [one for pair in self.pairs for one in pair] + self.people


@dataclass
class Stage:
    """What a run has: the server, the accounts, a length, and the connections it opened."""

    server: Server
    cast: Cast
    secs: float
    connections: list[Connection] = field(default_factory=list)

    async def join(
        self, make: Callable[[], _Connection], person: Person, *, waiting: int = 0
    ) -> _Connection:
        """Take up a person's device; exactly `waiting` messages must wait for it."""
        connection = await dial(self.server.address, make)
        self.connections.append(connection)
        queued = await resume(connection, person.push_id)
        if queued != waiting:
            raise LoadFailed(f"{queued} messages wait for a device, and {waiting} should")
        return connection

    async def join_pairs(self, make: Callable[[], Sender]) -> Pairs:
        """Bring all pairs online, the first of each ready to send to the second."""
        senders = await in_turns(
            [partial(self.join, make, a) for a, _ in self.cast.pairs], at_once=AT_ONCE
        )
        receivers = await in_turns(
            [partial(self.join, Receiver, b) for _, b in self.cast.pairs], at_once=AT_ONCE
        )
        for sender, (_, friend) in zip(senders, self.cast.pairs, strict=True):
            sender.aim(friend.user_id)
        return list(zip(senders, receivers, strict=True))

    def close(self) -> None:
        """Close all connections."""
        for connection in self.connections:
            connection.close()
        self.connections.clear()


class Measured(Protocol):
    """A server as a process."""

    def cpu(self) -> float:
        """Return the seconds of CPU it has used."""


class Meter:
    """How long something takes, and how much of a core the server and the load use for it."""

    def __init__(self, server: Measured) -> None:
        self._server = server
        self._begin = now(), server.cpu(), time.process_time()

    @property
    def seconds(self) -> float:
        """The time since the beginning."""
        return now() - self._begin[0]

    def costs(self, count: int) -> Figures:
        """Return the shares so far, and what one of so many messages or restarts cost."""
        used = self._server.cpu() - self._begin[1]
        return {"cpu_us": 1e6 * used / count, **self.shares()}

    def shares(self) -> Figures:
        """Return the shares so far, in per cent of a core."""
        seconds = self.seconds
        return {
            "server_cpu": 100 * (self._server.cpu() - self._begin[1]) / seconds,
            "load_cpu": 100 * (time.process_time() - self._begin[2]) / seconds,
        }


# Setting up


async def _pairs(address: Address) -> Cast:
    return Cast(pairs=await make_pairs(address, PAIRS))


async def _pairs_and_one(address: Address) -> Cast:
    pairs = await make_pairs(address, PAIRS)
    return Cast(pairs, await make_people(address, 1, first=2 * PAIRS))


async def _one_pair(address: Address) -> Cast:
    return Cast(pairs=await make_pairs(address, 1))


async def _many(address: Address) -> Cast:
    return Cast(people=await make_people(address, IDLE))


async def _group(address: Address) -> Cast:
    groups, people = await make_groups(address, [GROUP], online=GROUP)
    return Cast(people=people, groups=groups)


async def _crowd_and_pair(address: Address) -> Cast:
    groups, people = await make_groups(address, [CROWD], online=CROWD_ONLINE)
    return Cast(await make_pairs(address, 1, first=CROWD), people, groups)


async def _crowds(address: Address) -> Cast:
    groups, people = await make_groups(address, SIZES, online=0)
    return Cast(people=people, groups=groups)


async def _away(address: Address) -> Cast:
    return Cast(people=[await make_away(address, AWAY_CHATS, AWAY_EACH)])


# Running


async def _throughput(stage: Stage, *, size: int) -> Figures:
    """Send as much as the windows allow."""
    pairs = await stage.join_pairs(partial(Sender, size=size))
    meter = Meter(stage.server)
    await send_for(stage.secs, pairs)
    count = sum(sender.total for sender, _ in pairs)
    return {"messages_s": count / meter.seconds, **meter.costs(count)}


async def _latency(stage: Stage) -> Figures:
    """Send at a fixed rate, whatever comes back."""
    pairs = await stage.join_pairs(Sender)
    meter = Meter(stage.server)
    late = await send_at_rate(pairs, RATE, stage.secs)
    await finish(pairs)
    received = sorted(delay for _, receiver in pairs for delay in receiver.delays)
    confirmed = sorted(delay for sender, _ in pairs for delay in sender.delays)
    return {
        "p50_ms": percentile(received, 0.5),
        "p99_ms": percentile(received, 0.99),
        "max_ms": percentile(received, 1),
        "confirm_p50_ms": percentile(confirmed, 0.5),
        "confirm_p99_ms": percentile(confirmed, 0.99),
        "late_ms": late * 1000,
        **meter.costs(len(received)),
    }


async def _fan_out(stage: Stage) -> Figures:
    """Send as much as the window allows into a group whose members are all online."""
    sender, members = await _join_group(stage, GROUP - 1)
    meter = Meter(stage.server)
    sender.go(SENT_MAX)
    await asyncio.sleep(stage.secs)
    sender.halt()
    await finish([(sender, member) for member in members])
    count = sender.total * len(members)
    seconds = meter.seconds
    return {"deliveries_s": count / seconds, "messages_s": sender.total / seconds} | meter.costs(
        count
    )


async def _beside(stage: Stage) -> Figures:
    """See how long a pair waits for each other while a large group is written to."""
    crowd, members = await _join_group(stage, CROWD_ONLINE)
    pairs = await stage.join_pairs(Sender)
    # After a start the server reads where the queues of all members stand.
    crowd.due.append(now())
    crowd.send_lists(1)
    await crowd.reach(crowd.sent)
    first = crowd.delays.pop()
    meter, before = Meter(stage.server), crowd.total
    late, _ = await asyncio.gather(
        send_at_rate(pairs, BESIDE_RATE, stage.secs),
        send_at_rate([(crowd, Receiver())], CROWD_RATE, stage.secs),
    )
    await finish(pairs)
    await finish([(crowd, member) for member in members])
    received = sorted(pairs[0][1].delays)
    committed = sorted(crowd.delays)
    rows = (crowd.total - before) * (CROWD - 1)
    return {
        "p50_ms": percentile(received, 0.5),
        "p99_ms": percentile(received, 0.99),
        "max_ms": percentile(received, 1),
        "group_p50_ms": percentile(committed, 0.5),
        "group_p99_ms": percentile(committed, 0.99),
        "group_first_ms": first * 1000,
        "deliveries_s": rows / meter.seconds,
        "late_ms": late * 1000,
        **meter.shares(),
    }


async def _upload(stage: Stage) -> Figures:
    """See how long messages take to a connection that saves a large file meanwhile."""
    ((sending, saving),) = stage.cast.pairs
    sender, receiver = await stage.join(Sender, sending), await stage.join(Uploader, saving)
    sender.aim(saving.user_id)
    pairs = [(sender, receiver)]
    meter = Meter(stage.server)
    uploading = asyncio.create_task(receiver.upload(os.urandom(FILE)))
    late = 0.0
    while not uploading.done():
        late = max(late, await send_at_rate(pairs, BESIDE_RATE, UPLOAD_STEP))
    await uploading
    seconds = meter.seconds
    await finish(pairs)
    received = sorted(receiver.delays)
    return {
        "p50_ms": percentile(received, 0.5),
        "p99_ms": percentile(received, 0.99),
        "max_ms": percentile(received, 1),
        "upload_s": seconds,
        "late_ms": late * 1000,
        **meter.shares(),
    }


async def _sizes(stage: Stage) -> Figures:
    """Send to groups of several sizes, one message after the other."""
    sender, _ = await _join_group(stage, 0)
    figures: Figures = {}
    for size, group in zip(SIZES, stage.cast.groups, strict=True):
        sender.aim(group, "7")
        sender.delays.clear()
        for _ in range(EACH_SIZE):
            sender.due.append(now())
            sender.send_lists(1)
            await sender.reach(sender.sent)
        figures[f"group_{size}_ms"] = percentile(sorted(sender.delays), 0.5)
    return figures


async def _catch_up(stage: Stage) -> Figures:
    """Ask for all chats after a long absence, a hundred a page."""
    connection = await log_in(stage.server.address, stage.cast.people[0])
    stage.connections.append(connection)
    delays: list[float] = []
    chats = unread = 0
    page: str | None = ""
    while page is not None:
        begin = now()
        line = f'{{"cmd":"chats","size":100,"page":"{page}"}}\n'
        reply = await connection.ask(line.encode())
        delays.append(now() - begin)
        pairs = [entry for entry in reply["result"] if entry["kind"] == "pair"]
        chats += len(pairs)
        unread += sum(entry["unread"] for entry in pairs)
        page = reply.get("next")
    # The request of each friend is unread as well.
    if (chats, unread) != (AWAY_CHATS, AWAY_CHATS * (AWAY_EACH + 1)):
        raise LoadFailed(f"{chats} chats with {unread} unread messages")
    return {"page_ms": 1000 * sum(delays) / len(delays), "page_max_ms": 1000 * max(delays)}


async def _join_group(stage: Stage, online: int) -> tuple[Sender, list[Receiver]]:
    """Bring the owner of the first group and some of its members online."""
    owner, *members = stage.cast.people
    sender = await stage.join(Sender, owner)
    sender.aim(stage.cast.groups[0], "7")
    joins = [partial(stage.join, Receiver, member) for member in members[:online]]
    return sender, await in_turns(joins, at_once=AT_ONCE) if joins else []


async def _idle(stage: Stage) -> Figures:
    """Hold connections that do nothing."""
    people = stage.cast.people
    join = partial(stage.join, Connection)
    # What the first connections make the server load is not the price of a connection.
    await in_turns([partial(join, one) for one in people[:WARM]], at_once=AT_ONCE)
    stage.close()
    await asyncio.sleep(SETTLE)
    before = stage.server.memory()
    held = await in_turns([partial(join, one) for one in people], at_once=AT_ONCE)
    await asyncio.sleep(SETTLE)
    after = stage.server.memory()
    meter = Meter(stage.server)
    await asyncio.sleep(stage.secs)
    shares = meter.shares()
    if not all(connection.usable for connection in held):
        raise LoadFailed("the server did not keep all connections")
    return {
        "kib_each": (after - before) / len(held),
        "base_mib": before / 1024,
        "idle_cpu": shares["server_cpu"],
    }


async def _replay(stage: Stage) -> Figures:
    """Come back to a long queue."""
    ((sending, away),) = stage.cast.pairs
    sender = await stage.join(Sender, sending)
    sender.aim(away.user_id)
    filling = Meter(stage.server)
    sender.go(WAITING)
    await sender.reach(WAITING)
    filled = WAITING / filling.seconds
    meter = Meter(stage.server)
    receiver = await stage.join(Receiver, away, waiting=WAITING)
    await finish([(sender, receiver)])
    seconds = meter.seconds
    return {
        "seconds": seconds,
        "messages_s": WAITING / seconds,
        "filling_s": filled,
        **meter.costs(WAITING),
    }


async def _restarts(stage: Stage) -> Figures:
    """Connect, take the device up, and go, a few at a time."""
    people = stage.cast.everybody

    async def come_and_go(number: int) -> None:
        # The same person is back only when the others have been here, so nobody is replaced.
        connection = await dial(stage.server.address, Connection)
        await resume(connection, people[number % len(people)].push_id)
        connection.close()

    meter = Meter(stage.server)
    await in_turns(
        [partial(come_and_go, number) for number in range(RESTARTS)], at_once=RESTARTS_AT_ONCE
    )
    return {"restarts_s": RESTARTS / meter.seconds, **meter.costs(RESTARTS)}


async def _lag(stage: Stage) -> Figures:
    """See how long the loop keeps a heartbeat waiting: quiet, under logins, under messages."""
    async with _heartbeats(stage) as quiet:
        await asyncio.sleep(QUIET)
    async with _heartbeats(stage) as logins:
        meter = Meter(stage.server)
        stage.connections += await in_turns(
            [
                partial(log_in, stage.server.address, one)
                for pair in stage.cast.pairs
                for one in pair
            ],
            at_once=2 * PAIRS,
        )
        rate = 2 * PAIRS / meter.seconds
    stage.close()
    pairs = await stage.join_pairs(Sender)
    async with _heartbeats(stage) as messages:
        await send_for(stage.secs, pairs)
    return {
        "quiet_p99_ms": percentile(quiet, 0.99),
        "quiet_max_ms": percentile(quiet, 1),
        "logins_s": rate,
        "logins_p99_ms": percentile(logins, 0.99),
        "logins_max_ms": percentile(logins, 1),
        "load_p99_ms": percentile(messages, 0.99),
        "load_max_ms": percentile(messages, 1),
    }


# Parts of runs


@asynccontextmanager
async def _heartbeats(stage: Stage) -> AsyncIterator[list[float]]:
    """Send heartbeats meanwhile; the list holds their round trips afterwards, sorted."""
    (person,) = stage.cast.people
    tally = await stage.join(partial(Tally, HEARTBEAT), person)
    delays: list[float] = []
    enough = asyncio.Event()
    beating = asyncio.create_task(_beat(tally, enough))
    try:
        yield delays
    finally:
        enough.set()
        await tally.reach(await beating)
        tally.close()
    delays += sorted(tally.delays)


async def _beat(tally: Tally, enough: asyncio.Event) -> int:
    """Send a heartbeat every `BEAT`, answered or not; return how many were sent."""
    begin = now()
    for number in range(BEATS_MAX):
        await asyncio.sleep(max(0.0, begin + number * BEAT - now()))
        if enough.is_set():
            return number
        tally.due.append(now())
        tally.write(HEARTBEAT_FRAME)
    return BEATS_MAX


@dataclass(frozen=True)
class Workload:
    """One row: how the accounts are made, what a run does, and the settings it needs."""

    title: str
    prepare: Callable[[Address], Coroutine[None, None, Cast]]
    run: Callable[[Stage], Coroutine[None, None, Figures]]
    settings: Mapping[str, object] = field(default_factory=dict)


WORKLOADS = {
    "W1": Workload(
        f"{PAIRS} pairs, 64 unconfirmed a sender, one message a frame",
        _pairs,
        partial(_throughput, size=1),
    ),
    "W1L": Workload(
        f"the same in lists of {LIST}",
        _pairs,
        partial(_throughput, size=LIST),
    ),
    "W2": Workload(f"{RATE:,} messages/s over {PAIRS} pairs", _pairs, _latency),
    "W3": Workload(f"{IDLE:,} idle started connections", _many, _idle),
    "W4": Workload(f"{WAITING:,} messages wait for a device that connects", _one_pair, _replay),
    "W5": Workload(f"one sender into a group of {GROUP}, all online", _group, _fan_out),
    "W5P": Workload(
        f"a pair at {BESIDE_RATE}/s beside a group of {CROWD:,} ({CROWD_ONLINE} online) "
        f"at {CROWD_RATE}/s",
        _crowd_and_pair,
        _beside,
    ),
    "W5N": Workload(
        "one message after the other to groups of 10, 100, 1,000 and 5,000", _crowds, _sizes
    ),
    "W5F": Workload(
        f"a pair at {BESIDE_RATE}/s, the receiver saves a file of 16 MiB on the same connection",
        _one_pair,
        _upload,
    ),
    "W6": Workload(
        f"connect, restart, ready, close; {RESTARTS_AT_ONCE} at a time", _pairs, _restarts
    ),
    "W7": Workload(
        f"{AWAY_CHATS} chats with {AWAY_EACH} unread messages each, by pages of 100",
        _away,
        _catch_up,
    ),
    "W9": Workload(
        f"a heartbeat every 10 ms beside {2 * PAIRS} logins at bcrypt cost 10, then beside W1",
        _pairs_and_one,
        _lag,
        {"auth_bcrypt_cost": 10},
    ),
}
