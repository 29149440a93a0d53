"""When the descriptors are used up: the processor rests, nobody is dropped, the store goes on.

    python -m tests.net.descriptors --seconds 5

A server with 128 descriptors gets 200 connects. While it is full it may use a fifth of a processor,
who is there chats, an upload and a backup open their files; when 50 leave, others are served within
a second. Then 300 clients of its TLS port say nothing, a byte at a time, or garbage: they are gone
when the time for a handshake is over. At last the limit is lowered while it runs. Exit code 1 if
it is not so.
"""

import argparse
import asyncio
import base64
import contextlib
import os
import random
import resource
import socket
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from tests.conformance.authority import Authority, cpu_seconds, descriptors, dial, has_ended
from tests.conformance.wire import PING, Wire
from tests.model.record import conclude
from tests.net.slow import chat, ms, p99
from tests.net.variants import EAGER, Watched, serving

FILES = 128
CONNECTS = 200
LEAVING = 50
CPU = 0.2
RESUME = 1.0  # seconds
SAMPLES = 100  # messages
HANDSHAKE = 3  # seconds
TLS_CLIENTS = 300
PAUSED = "no more connections are accepted for now"
PATIENCE = 20.0
Figures = dict[str, str | int | float]


class Tight(Watched):
    """A server that may open few files, with a port for TLS."""

    def __init__(self, folder: Path, program: str = "") -> None:
        authority = Authority(folder)
        super().__init__(
            folder,
            program,
            tls_listen="127.0.0.1:0",
            tls_certificate=authority.certificate,
            tls_key=authority.key,
            tls_handshake_seconds=HANDSHAKE,
        )
        self.authority = authority

    def _command(self, ports: Path) -> list[str]:
        limit = f'ulimit -n {FILES} && exec "$@"'
        return ["bash", "-c", limit, "bash", *super()._command(ports)]


class Shortage:
    """One server, and what a shortage came to."""

    def __init__(self, server: Tight) -> None:
        self.server = server
        self.figures: Figures = {}
        self.problems: list[str] = []
        self.busy = 0.0  # of a processor, while full
        self.wanted = 0.0  # the same, and what it waited for one
        self._crowd: list[socket.socket] = []

    def close(self) -> None:
        """Close what was opened."""
        for sock in self._crowd:
            sock.close()

    async def fill(self, seconds: float) -> None:
        """Use up all descriptors, and look what the server does then."""
        a, b = await self.server.dial.pair()
        self._crowd = [dial(self.server.address, PING + b"\n") for _ in range(CONNECTS)]
        if not await until(lambda: PAUSED in self.server.log_text(), 5):
            self.problems.append("full, and the log does not say so")
        began, used, waited = time.monotonic(), cpu_seconds(self.server), queued(self.server)
        await asyncio.sleep(seconds)
        took = time.monotonic() - began
        self.busy = (cpu_seconds(self.server) - used) / took
        self.wanted = self.busy + (queued(self.server) - waited) / took
        self.figures["processor while full"] = f"{100 * self.busy:.1f} %"
        if self.busy >= CPU:
            self.problems.append(f"{100 * self.busy:.0f} % of a processor while full")
        self.figures["p99 of who is there, while full"] = ms(p99(await chat(a, b, SAMPLES)))
        await self._store(a)

    async def _store(self, a: Wire) -> None:
        """Have the store open files."""
        content = base64.b64encode(b"x" * 100_000).decode()
        reply = await a.command("save_file", name="x", content=content)
        if reply["status"] != 1:
            self.problems.append(f"an upload while full: {reply}")
        archive = self.server.folder / "backup.tar"
        words = ("-m", "pushd.ctl", "backup", archive, "--data", self.server.data)
        pipe = asyncio.subprocess.PIPE
        run = await asyncio.create_subprocess_exec(
            sys.executable, *map(str, words), stdout=pipe, stderr=pipe
        )
        _, err = await run.communicate()
        if run.returncode or not archive.exists():
            self.problems.append(f"a backup while full: {err.decode()}")

    async def leave(self) -> None:
        """Have some of those who were served go."""
        served = [sock for sock in self._crowd if answered(sock)]
        self.figures["served of 200"] = len(served)
        waiting = [sock for sock in self._crowd if sock not in served]
        for sock in served[:LEAVING]:
            sock.close()
        began = time.monotonic()
        room = min(LEAVING, len(served))
        await until(lambda: sum(map(answered, waiting)) >= room, PATIENCE)
        took = time.monotonic() - began
        self.figures["until their places are taken"] = f"{took:.2f} s"
        if took > RESUME:
            self.problems.append(f"accepting went on after {took:.1f} s")
        self.close()
        await until(lambda: descriptors(self.server) < FILES // 2, PATIENCE)

    async def handshakes(self) -> None:
        """Have clients of the TLS port that never finish a handshake."""
        plain = await self.server.dial.user()
        port = self.server.addresses[-1]
        began = time.monotonic()
        clients = [dial(port) for _ in range(TLS_CLIENTS)]
        silent, slow, wild = clients[::3], clients[1::3], clients[2::3]
        for sock in wild:
            with contextlib.suppress(OSError):
                sock.send(random.randbytes(500))
        # Each place is taken several times over: those who wait get theirs later.
        for turn in range(10 * HANDSHAKE * TLS_CLIENTS // (FILES // 2)):
            for sock in slow:
                with contextlib.suppress(OSError):
                    sock.send(b"\x16\x03\x01\x02\x00\x01\x00"[turn % 7 :][:1])
            await plain.fence()
            await asyncio.sleep(0.3)
            if all(map(has_ended, [*silent, *slow, *wild])):
                break
        took = time.monotonic() - began
        self.figures[f"{TLS_CLIENTS} without a handshake are gone after"] = f"{took:.1f} s"
        left = sum(not has_ended(sock) for sock in clients)
        if left:
            self.problems.append(f"{left} handshakes are still there after {took:.1f} s")
        for sock in clients:
            sock.close()
        await plain.fence()
        with await asyncio.to_thread(self.server.authority.connect, self.server) as wire:
            wire.sendall(PING + b"\n")
            if not await asyncio.to_thread(wire.recv, 4096):
                self.problems.append("a client of the TLS port is not answered afterwards")

    async def lower(self) -> None:
        """Lower the limit while the server runs: to less than what clients may take by itself."""
        a = await self.server.dial.user()
        now = descriptors(self.server)
        resource.prlimit(self.server.pid, resource.RLIMIT_NOFILE, (now + 10, FILES))
        crowd = [dial(self.server.address, PING + b"\n") for _ in range(30)]
        used, began = cpu_seconds(self.server), time.monotonic()
        await asyncio.sleep(2)
        busy = (cpu_seconds(self.server) - used) / (time.monotonic() - began)
        self.figures["processor after the limit was lowered"] = f"{100 * busy:.1f} %"
        if busy >= CPU:
            self.problems.append(f"{100 * busy:.0f} % of a processor after the limit was lowered")
        await a.fence()
        for sock in crowd[:20]:
            sock.close()
        began = time.monotonic()
        again = await self.server.dial()
        await again.fence()
        if time.monotonic() - began > RESUME:
            self.problems.append("accepting did not go on after the limit was lowered")
        for sock in crowd:
            sock.close()


def queued(server: Watched) -> float:
    """Give the seconds that a server has waited for a processor."""
    path = f"/proc/{server.pid}/schedstat"
    try:
        return int(Path(path).read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def answered(sock: socket.socket) -> bool:
    """Tell whether an answer is there to be read."""
    try:
        return bool(sock.recv(4096, socket.MSG_PEEK))
    except OSError:
        return False


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until something holds; False if it does not in this time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


def running(program: str = "") -> AbstractContextManager[Tight]:
    """Run a server with few descriptors; a control may fail in any way."""
    return serving(lambda folder: Tight(folder, program), sound=not program)


async def control(seconds: float) -> str:
    """Run a server that tries to accept again at once; gives how it was caught, or ""."""
    with running(EAGER) as server:
        one = Shortage(server)
        with contextlib.suppress(OSError, TimeoutError, AssertionError, EOFError):
            await one.fill(seconds)
        one.close()
    # On a machine with other things to do it gets less than it wants.
    spins = one.busy >= CPU or one.wanted > 0.6
    return f"{100 * one.busy:.0f} % of a processor, wanted {100 * one.wanted:.0f} %" * spins


async def everything(seconds: float) -> tuple[Shortage, str]:
    """Run all of it, then the control."""
    with running() as server:
        one = Shortage(server)
        await one.fill(seconds)
        await one.leave()
        await one.handshakes()
        await one.lower()
    return one, await control(seconds)


def main() -> int:
    """Run from the command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.net.descriptors", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    one, caught = asyncio.run(everything(options.seconds))
    figures = {**one.figures, "load average": f"{load:.1f}"}
    found = f"caught: {caught}" if caught else "not caught"
    return conclude("net-descriptors", figures, one.problems, {"accepting does not pause": found})


if __name__ == "__main__":
    sys.exit(main())
