"""When file descriptors run out: nobody is dropped, nothing spins, the store keeps its own."""

import asyncio
import base64
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from .authority import Authority, ask, cpu_seconds, descriptors, dial, has_ended, logged
from .process import Process, StartServer
from .wire import PING, Address, Wire

LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
PAUSED = "no more connections are accepted for now"


class Tight(Process):
    """A server that may open `files` descriptors."""

    files = 128

    def _command(self, ports: Path) -> list[str]:
        limit = f'ulimit -n {self.files} && exec "$@"'
        return ["bash", "-c", limit, "bash", *super()._command(ports)]


class Tighter(Tight):
    """One that has fewer than it keeps back for the store, so that the kernel says no."""

    files = 44


async def answered(socks: list[socket.socket]) -> int:
    """Count the pings that have an answer by now."""
    count = 0
    for sock in socks:
        try:
            data = sock.recv(4096, socket.MSG_PEEK)
        except BlockingIOError:
            continue
        assert data, "a client that waited was dropped"
        count += 1
    return count


def usage(own: Process, seconds: float, used: float) -> float:
    return (cpu_seconds(own) - used) / seconds


@LOOPS
@pytest.mark.parametrize("kind", [Tight, Tighter])
async def test_all_are_taken(server: StartServer, loop: str, kind: type[Tight]) -> None:
    """Who is there goes on, who comes waits and is served when there is room, and one line says so.

    The processor rests meanwhile, and the store can open files.
    """
    own = server(loop=loop, kind=kind)
    a, b = await own.dial.pair()
    crowd = [dial(own.address, PING + b"\n") for _ in range(200)]
    logged(own, PAUSED)
    used, began = cpu_seconds(own), time.monotonic()
    while time.monotonic() < began + 2:
        await a.say(b.user_id, "still here")
        await asyncio.sleep(0.1)
    assert usage(own, time.monotonic() - began, used) < 0.2
    inside = await answered(crowd)
    assert 10 < inside < kind.files
    if kind is Tight:
        content = base64.b64encode(b"x" * 100_000).decode()
        await a.ok("save_file", name="x", content=content)
        await a.ok("export_account")
        assert descriptors(own) < kind.files - 20
    leaving, crowd = crowd[:10], crowd[10:]
    for sock in leaving:
        sock.close()
    began = time.monotonic()
    while await answered(crowd) < inside:
        assert time.monotonic() < began + 1, "accepting does not go on"
        await asyncio.sleep(0.02)
    assert sum(PAUSED in line for line in own.log_text().splitlines()) == 1
    for sock in crowd:
        sock.close()
    again = await own.dial()
    await again.fence()


@LOOPS
async def test_handshakes_are_among_them(server: StartServer, tmp_path: Path, loop: str) -> None:
    """Silent clients of the TLS listener take no more than others, and no longer than they may."""
    own = Authority(tmp_path).start(server, loop=loop, kind=Tight, tls_handshake_seconds=1)
    wire = await own.dial()
    silent = [dial(own.addresses[-1]) for _ in range(100)]
    logged(own, PAUSED)
    await wire.fence()
    began = time.monotonic()
    while not all(map(has_ended, silent)):
        assert time.monotonic() < began + 5
        await wire.fence()
        await asyncio.sleep(0.05)
    for sock in silent:
        sock.close()
    again = await own.dial()
    await again.fence()


@contextmanager
def flood(address: Address, threads: int) -> Iterator[list[int]]:
    """Connect and reset again and again, from several threads; counts as it goes."""
    counts, over = [0] * threads, threading.Event()

    def work(at: int) -> None:
        while not over.is_set():
            with suppress(OSError), socket.create_connection(address, 5) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                counts[at] += 1

    workers = [threading.Thread(target=work, args=(at,)) for at in range(threads)]
    for each in workers:
        each.start()
    try:
        yield counts
    finally:
        over.set()
        for each in workers:
            each.join()


async def pulse(wire: Wire, seconds: float) -> list[float]:
    """Ping for a while, and return how long each took, longest last."""
    waits, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        await wire.fence()
        waits.append(time.monotonic() - began)
        await asyncio.sleep(0.01)
    return sorted(waits)


@LOOPS
async def test_a_flood_of_connects(server: StartServer, loop: str) -> None:
    """Thousands of connects a second from one address: others are answered, nothing stays."""
    own = server(loop=loop)
    wire = await own.dial()
    await wire.fence()
    before = descriptors(own)
    with flood(own.address, 2) as counts:
        waits = await pulse(wire, 2)
    assert sum(counts) > 500
    # How fast is a figure of a quiet machine; here nobody waits until the flood is over.
    assert waits[len(waits) // 2] < 0.5
    assert waits[-1] < 2
    deadline = time.monotonic() + 10
    while descriptors(own) > before + 10:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    with socket.create_connection(own.address, 10) as sock:
        ask(sock)
