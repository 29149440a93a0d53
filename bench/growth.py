"""`python -m bench.growth`: what the same work costs as everything around it grows (W7, W8).

One thing grows at a time: the accounts there are, the people online, the messages stored, the queue
of a device. Each row is a server of its own. Flat means that the CPU of a message, of a restart and
of a page of history stays what it is in the smallest store; what is linear by nature (a group by
its members) is W5N of `python -m bench`. The last row is what 10,000 phones cost that only tell
every 270 seconds that they are there.
"""

import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import uvloop

from . import aged, report
from .flow import finish, percentile, send_at_rate, send_for
from .load import (
    HEARTBEAT,
    HEARTBEAT_FRAME,
    Connection,
    LoadFailed,
    Receiver,
    Sender,
    Tally,
    in_turns,
    now,
)
from .people import Person
from .process import ROOT, Server, busy_seconds, raise_file_limit, split_cores
from .workloads import Cast, Figures, Meter, Stage

RATE = 500  # messages a second, for the latency
RESTARTS = 1000
PAGES = 200  # pages of history that are asked for
PAGE = 50  # messages of one
SEED = 7


@dataclass(frozen=True)
class Scale:
    """One row: how large everything is."""

    pairs: int = 50  # accounts are twice as many
    online: int = 50  # pairs that send
    messages: int = 0  # stored before

    @property
    def title(self) -> str:
        """What a person reads."""
        return (
            f"{2 * self.pairs:,} accounts, {2 * self.online:,} online,"
            f" {self.messages:,} messages stored"
        )


SMALLEST = Scale()
GROWING = (
    SMALLEST,
    replace(SMALLEST, pairs=500),
    replace(SMALLEST, pairs=5_000),
    replace(SMALLEST, pairs=25_000),
    replace(SMALLEST, pairs=25_000, online=500),
    replace(SMALLEST, pairs=25_000, online=4_000),
    replace(SMALLEST, messages=100_000),
    replace(SMALLEST, messages=1_000_000),
)
QUEUES = (10, 100, 1_000, 10_000, 100_000)
IDLE = 10_000  # connections
PERIOD = 270.0  # seconds between two heartbeats of one
IDLE_SECS = 20.0  # that they are watched for


async def use(stage: Stage, scale: Scale) -> Figures:
    """Send at full speed and at a fixed rate, come back, and read old pages."""
    window = max(1, 64 * 50 // scale.online)
    chosen = random.Random(SEED).sample(stage.cast.pairs, scale.online)
    stage.cast.pairs = chosen
    pairs = await stage.join_pairs(partial(Sender, window=window))
    # What is read once after a start is not what grows.
    for sender, _ in pairs:
        sender.send_lists(1)
    await finish(pairs)
    meter = Meter(stage.server)
    before = sum(sender.total for sender, _ in pairs)
    await send_for(stage.secs, pairs)
    count = sum(sender.total for sender, _ in pairs) - before
    figures = {"messages_s": count / meter.seconds, "cpu_us": meter.costs(count)["cpu_us"]}
    for sender, receiver in pairs:
        sender.delays.clear()
        receiver.delays.clear()
    await send_at_rate(pairs, RATE, stage.secs)
    await finish(pairs)
    delays = sorted(delay for _, receiver in pairs for delay in receiver.delays)
    figures |= {"p50_ms": percentile(delays, 0.5), "p99_ms": percentile(delays, 0.99)}
    stage.close()
    figures["page_ms"] = await _read(stage, chosen)
    figures["restart_us"] = await _come_and_go(stage, chosen)
    return figures


async def _read(stage: Stage, pairs: list[tuple[Person, Person]]) -> float:
    """Ask for pages of history; gives the mean, in milliseconds."""
    connection = await stage.join(Connection, pairs[0][0])
    chat = "-".join(person.user_id for person in pairs[0])
    begin = now()
    for _ in range(PAGES):
        await connection.ask(f'{{"cmd":"history","chatId":"{chat}","size":{PAGE}}}\n'.encode())
    spent = now() - begin
    stage.close()
    return 1000 * spent / PAGES


async def _come_and_go(stage: Stage, pairs: list[tuple[Person, Person]]) -> float:
    """Come back and go, again and again; gives the server's CPU for one, in microseconds."""
    people = [person for pair in pairs for person in pair]

    async def once(number: int) -> None:
        connection = await stage.join(Connection, people[number % len(people)])
        connection.close()

    meter = Meter(stage.server)
    await in_turns([partial(once, number) for number in range(RESTARTS)], at_once=10)
    stage.connections.clear()
    return meter.costs(RESTARTS)["cpu_us"]


async def replay(stage: Stage, waiting: int) -> Figures:
    """Come back to a queue of so many messages."""
    ((sending, away),) = stage.cast.pairs
    sender = await stage.join(partial(Sender, window=256), sending)
    sender.aim(away.user_id)
    sender.go(waiting)
    await sender.reach(waiting)
    meter = Meter(stage.server)
    receiver = await stage.join(Receiver, away, waiting=waiting)
    await finish([(sender, receiver)])
    return {"replay_s": meter.seconds, "cpu_us": meter.costs(waiting)["cpu_us"]}


async def beat(stage: Stage) -> Figures:
    """Hold connections of which each sends a heartbeat now and then, evenly spread."""
    people = [person for pair in stage.cast.pairs for person in pair]
    join = partial(stage.join, partial(Tally, HEARTBEAT))
    held = await in_turns([partial(join, person) for person in people], at_once=20)
    await asyncio.sleep(2)
    meter = Meter(stage.server)
    begin = now()
    count = int(IDLE_SECS * len(held) / PERIOD)
    for number in range(count):
        await asyncio.sleep(max(0.0, begin + number * PERIOD / len(held) - now()))
        held[number % len(held)].write(HEARTBEAT_FRAME)
    await asyncio.gather(*(tally.reach(1) for tally in held[:count]))
    await asyncio.sleep(max(0.0, begin + IDLE_SECS - now()))
    return {"heartbeats_s": count / meter.seconds, "server_cpu": meter.shares()["server_cpu"]}


class Growth:
    """Makes the rows, one after the other."""

    def __init__(self, folder: Path, cores: list[int], secs: float) -> None:
        self._folder = folder
        self._cores = cores
        self._secs = secs

    def grown(self, scale: Scale) -> Figures:
        """Measure one size."""
        with self._server(limits_connections=20_000) as server:
            stage = self._stage(server, scale.pairs, scale.messages)
            size = (server.data / "pushd.db").stat().st_size / 1e6
            return {**self._run(stage, partial(use, stage, scale)), "megabytes": size}

    def waited(self, waiting: int) -> Figures:
        """Measure one length of a queue."""
        with self._server(queue_messages=1_000_000) as server:
            stage = self._stage(server, 1)
            return self._run(stage, partial(replay, stage, waiting))

    def idle(self) -> Figures:
        """Measure connections that do next to nothing."""
        with self._server(limits_connections=20_000) as server:
            stage = self._stage(server, IDLE // 2)
            return self._run(stage, partial(beat, stage))

    def _stage(self, server: Server, pairs: int, messages: int = 0) -> Stage:
        server.stop()
        made = aged.add_pairs(server.data, pairs)
        aged.add_messages(server.data, messages)
        server.start()
        return Stage(server, Cast(pairs=made), self._secs)

    def _server(self, **settings: object) -> Server:
        shutil.rmtree(self._folder / "server", ignore_errors=True)
        return Server(self._folder / "server", "uvloop", self._cores, **settings)

    def _run(self, stage: Stage, job: Callable[[], Coroutine[Any, Any, Figures]]) -> Figures:
        busy, meter = busy_seconds(), Meter(stage.server)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            figures = runner.run(job())
        stage.close()
        ours = sum(meter.shares().values())
        figures["others_cpu"] = max(0.0, 100 * (busy_seconds() - busy) / meter.seconds - ours)
        return figures


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--secs", type=click.FloatRange(0.5, 60), default=4.0, show_default=True)
@click.option("--messages", type=int, default=10_000_000, help="In the largest store.")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), default=ROOT / "build")
def main(secs: float, messages: int, folder: Path) -> None:
    """Measure what grows with the store, and print it."""
    folder.mkdir(parents=True, exist_ok=True)
    raise_file_limit()
    server_cores, load_cores = split_cores()
    os.sched_setaffinity(0, load_cores)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    failed = False
    with tempfile.TemporaryDirectory(prefix="growth-", dir=folder) as scratch:
        cores = f"server on core {server_cores[0]}, load on core {load_cores[0]}"
        where = report.facts(Path(scratch), loop="uvloop", secs=secs, cores=cores)
        click.echo(f"{report.header(where)}\n")
        growth = Growth(Path(scratch), server_cores, secs)
        for scale in (*GROWING, replace(SMALLEST, pairs=25_000, messages=messages)):
            failed |= _say(scale.title, partial(growth.grown, scale))
        for waiting in QUEUES:
            failed |= _say(f"{waiting:,} messages wait", partial(growth.waited, waiting))
        title = f"{IDLE:,} connections, a heartbeat of each every {PERIOD:.0f} s"
        failed |= _say(title, growth.idle)
    sys.exit(failed)


def _say(title: str, measure: "partial[Figures]") -> bool:
    """Measure a row and print it; tells whether it failed."""
    try:
        figures = measure()
    except (LoadFailed, OSError, TimeoutError) as problem:
        click.echo(f"{title}: FAILED: {problem}")
        return True
    click.echo(f"{title}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))
    return False


if __name__ == "__main__":
    main(prog_name="python -m bench.growth")
