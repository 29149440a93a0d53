"""Clients that do not read, and clients that hardly write: what they cost, and whom they hold up.

    python -m tests.net.slow --clients 200

All members of a group have more waiting than a window holds. So many of them restart with the
smallest receive buffer and never read; as many others write a byte a second. The server may take
1.5 MiB for each that does not read, the others' messages may take twice as long as before, and
after the write time-out (those that do not read) and a reset (the rest) its memory must be back to
a tenth above the start. Each device then gets all that waited. Exit code 1 if it is not so.
"""

import argparse
import asyncio
import contextlib
import os
import re
import sys
import time
from contextlib import AbstractContextManager

from pushd.upkeep import MEMORY_PERIOD
from tests.conformance.crowd import Place, gathered, note
from tests.conformance.people import users
from tests.conformance.wire import Wire, frame
from tests.model.record import conclude
from tests.net.variants import Watched, serving

PER_READER = 3 << 19  # 1.5 MiB
BACK = 1.1  # of the memory at the start
MESSAGES = 800  # for each, more than a window and what the kernel takes
WORDS = "x" * 9000
LIST = 20
WRITE_TIMEOUT = 15  # seconds
SAMPLES = 1000  # some seconds, from the moment at which all of them come on
AS_LONG = 2.0  # as idle
NO_WINDOW = {"limits_window_bytes": 1 << 40, "limits_window_messages": 1_000_000}


class Figures:
    """What was measured."""

    def __init__(self) -> None:
        self.start = self.most = self.end = 0.0  # bytes
        self.idle = self.busy = 0.0  # seconds, p99
        self.closed = 0  # that took nothing
        self.problems: list[str] = []


async def chat(a: Wire, b: Wire, samples: int) -> list[float]:
    """Send texts from one to the other; gives how long each took to be delivered, longest last."""
    took = []
    for number in range(samples):
        began = time.monotonic()
        await a.say(b.user_id, str(number))
        await b.expect_delivery(ack=True)
        took.append(time.monotonic() - began)
        await asyncio.sleep(0.005)
    return sorted(took)


def p99(values: list[float]) -> float:
    """Give the 99th percentile of sorted values."""
    return values[int(len(values) * 0.99)]


async def fill(owner: Wire, group: Place, messages: int) -> None:
    """Send to a group more than its members take."""
    for start in range(0, messages, LIST):
        texts = [note(group, f"{n} {WORDS}") for n in range(start, min(start + LIST, messages))]
        await owner.post(*texts)


async def drip(wires: list[Wire]) -> None:
    """Send a byte a second on each, until cancelled."""
    while True:
        for wire in wires:
            with contextlib.suppress(OSError):
                wire.sock.send(b"x")
        await asyncio.sleep(1)


async def measure(server: Watched, clients: int, messages: int = MESSAGES) -> Figures:
    """Have so many that do not read, and as many that hardly write."""
    figures = Figures()
    group, (owner, *members) = await gathered(server.dial, clients + 2)
    a, b = await server.dial.pair()
    drips = await users(server.dial, clients // 2)
    for member in members:
        member.close()
    await fill(owner, group, messages)
    # What the first reading leaves in caches is there once and for all.
    figures.problems += await all_there(server, [members.pop()], messages)
    figures.idle = p99(await chat(a, b, SAMPLES))
    figures.start = (await server.holdings()).memory
    stuck = [await server.dial(receive_buffer=2048) for _ in members]
    for wire, member in zip(stuck, members, strict=True):
        await wire.send_line(frame("restart", member.push_id))
    # Half of those who write slowly have a session, half have none.
    drips += [await server.dial() for _ in range(clients - len(drips))]
    dripping = asyncio.create_task(drip(drips))
    try:
        figures.busy = p99(await chat(a, b, SAMPLES))
        await watch_memory(server, figures, clients)
    finally:
        dripping.cancel()
    for wire in drips:
        wire.abort()
    await settle(server, figures)
    figures.problems += await all_there(server, members[:: max(1, clients // 5)], messages)
    judge(figures, clients)
    return figures


async def watch_memory(server: Watched, figures: Figures, clients: int) -> None:
    """Note the greatest memory, until those who take nothing are closed."""
    deadline = time.monotonic() + 3 * WRITE_TIMEOUT
    while figures.closed < clients and time.monotonic() < deadline:
        figures.most = max(figures.most, (await server.holdings()).memory)
        # By the kernel, which is as patient, or by the server.
        ends = re.findall(r'reason=(?:reset|"takes nothing")', server.log_text())
        figures.closed = len(ends)
        await asyncio.sleep(0.25)


async def settle(server: Watched, figures: Figures) -> None:
    """Wait for the memory to be given back."""
    deadline = time.monotonic() + 2 * MEMORY_PERIOD
    while time.monotonic() < deadline:
        figures.end = (await server.holdings()).memory
        if figures.end <= BACK * figures.start:
            return
        await asyncio.sleep(0.25)


async def all_there(server: Watched, members: list[Wire], messages: int) -> list[str]:
    """Take up some of the devices and have all that waits."""
    problems = []
    for member in members:
        wire, reply = await server.dial.resume(member.push_id)
        got = await wire.drain(reply["queued"])
        numbers = [int(each["info"][0]["content"].split()[0]) for each in got]
        if numbers != list(range(messages)):
            problems.append(f"{member.user_id} got {len(numbers)} of {messages} messages")
        wire.close()
    return problems


def judge(figures: Figures, clients: int) -> None:
    """Hold the figures against what they may be."""
    allowed = figures.start + clients * PER_READER
    if figures.most > allowed:
        figures.problems.append(
            f"memory was {mib(figures.most)}, allowed for {clients} slow readers {mib(allowed)}"
        )
    if figures.end > BACK * figures.start:
        figures.problems.append(f"memory stayed at {mib(figures.end)}, from {mib(figures.start)}")
    if figures.closed < clients:
        figures.problems.append(f"{figures.closed} of {clients} that take nothing were closed")
    if figures.busy > AS_LONG * figures.idle:
        figures.problems.append(f"p99 went from {ms(figures.idle)} to {ms(figures.busy)}")


def mib(count: float) -> str:
    """Write bytes for people."""
    return f"{count / 2**20:.1f} MiB"


def ms(seconds: float) -> str:
    """Write a time for people."""
    return f"{1000 * seconds:.1f} ms"


def running(**settings: object) -> AbstractContextManager[Watched]:
    """Run a server with a short write time-out."""
    told = {"limits_write_timeout": WRITE_TIMEOUT, **settings}
    return serving(lambda folder: Watched(folder, **told))


async def everything(clients: int) -> tuple[Figures, Figures]:
    """Measure, and then a server without a window."""
    with running() as server:
        figures = await measure(server, clients)
    with running(**NO_WINDOW) as server:
        return figures, await measure(server, max(10, clients // 10))


def main() -> int:
    """Run from the command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.net.slow", description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    measured, control = asyncio.run(everything(options.clients))
    each = (measured.most - measured.start) / options.clients
    figures: dict[str, str | int | float] = {
        "clients that do not read": options.clients,
        "clients at a byte a second": options.clients,
        "memory at the start": mib(measured.start),
        "for each that does not read": mib(each),
        "memory afterwards": mib(measured.end),
        "p99 of the others, idle": ms(measured.idle),
        "p99 of the others, then": ms(measured.busy),
        "load average": f"{load:.1f}",
    }
    caught = [problem for problem in control.problems if problem.startswith("memory was")]
    found = f"caught: {caught[0]}" if caught else "not caught"
    return conclude("net-slow", figures, measured.problems, {"no window": found})


if __name__ == "__main__":
    sys.exit(main())
