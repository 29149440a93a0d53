"""Floods: connects, idle connections, restarts and logins, and who is held up by them.

    python -m tests.net.floods --seconds 20 --idle 10000 --devices 1000

    connects    as many a second as this machine gives, for so long, while 50 devices are there
    idle        so many connections that say nothing: what each costs
    restarts    all devices at once: until the last one is back
    logins      100 a second, with passwords as costly as those of real servers

Meanwhile a client sends heartbeats, and the server measures how late its loop is; 99 of 100 times
that must be less than 100 ms above what it is with nothing to do, for other programs of this
machine count too. No session that was accepted may end, no login may get a wrong answer.
Exit code 1 if it is not so.
"""

import argparse
import asyncio
import contextlib
import os
import resource
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager

from tests.conformance.authority import cpu_seconds
from tests.conformance.wire import PASSWORD, Address, Closed, Wire
from tests.model.record import conclude
from tests.net.slow import ms, p99
from tests.net.variants import HASHING, Watched, serving

LAG = 0.1  # seconds above what an idle server has, p99
BACK = 10.0  # seconds until 1,000 devices are back
PER_IDLE = 20 * 1024  # bytes, the aim
RESIDENTS = 50
LOGINS = 100  # a second
LOGIN_PATIENCE = 300.0  # seconds, for a machine with other things to do
ACCOUNTS = 100
COST = 10
FLOODERS = 2  # processes
BUCKET = "pushd_loop_lag_seconds_bucket{le="
Figures = dict[str, str | int | float]


class Lag:
    """How late the loop was in a time that is being measured."""

    def __init__(self, server: Watched) -> None:
        self._server = server
        self._before: dict[str, float] = {}

    async def begin(self) -> None:
        """Begin the time."""
        self._before = await self._server.metrics()

    async def end(self) -> float:
        """Give the 99th percentile of it: the bound of the bucket that it is in."""
        after = await self._server.metrics()
        counts = sorted(
            (float(name.removeprefix(BUCKET).rstrip("}")), count - self._before.get(name, 0))
            for name, count in after.items()
            if name.startswith(BUCKET)
        )
        wanted = 0.99 * counts[-1][1]
        return next(bound for bound, count in counts if count >= wanted)


@contextlib.asynccontextmanager
async def beating(wire: Wire) -> AsyncIterator[list[float]]:
    """Send heartbeats 20 times a second meanwhile; collects how long each took."""
    waits: list[float] = []

    async def beat() -> None:
        while True:
            began = time.monotonic()
            await wire.heartbeat()
            waits.append(time.monotonic() - began)
            await asyncio.sleep(0.05)

    task = asyncio.create_task(beat())
    try:
        yield waits
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        waits.sort()


class Flood:
    """One server, and what floods came to."""

    def __init__(self, server: Watched) -> None:
        self.server = server
        self.figures: Figures = {}
        self.problems: list[str] = []
        self.idle_lag = 0.0  # seconds
        self._lag = Lag(server)
        self._pulse: Wire

    async def calm(self, seconds: float) -> None:
        """Measure the server with nothing to do."""
        self._pulse = await self.server.dial.user(started=True)
        await self._lag.begin()
        async with beating(self._pulse) as waits:
            await asyncio.sleep(seconds)
        self.idle_lag = await self._lag.end()
        self.figures["loop lag p99, idle"] = f"<= {ms(self.idle_lag)}"
        self.figures["heartbeat p99, idle"] = ms(p99(waits))

    @contextlib.asynccontextmanager
    async def measured(self, name: str) -> AsyncIterator[None]:
        """Measure the lag and heartbeats meanwhile, and judge them."""
        await self._lag.begin()
        async with beating(self._pulse) as waits:
            yield
        lag = await self._lag.end()
        self.figures[f"{name}: loop lag p99"] = f"<= {ms(lag)}"
        self.figures[f"{name}: heartbeat p99"] = ms(p99(waits or [0.0]))
        if lag > self.idle_lag + LAG:
            self.problems.append(f"{name}: the loop was {ms(lag)} late")

    # --- connects ---------------------------------------------------------------------------

    async def connects(self, seconds: float) -> None:
        """Connect and reset as fast as it goes, while devices are there."""
        residents = [await self.server.dial.user(started=True) for _ in range(RESIDENTS)]
        used = cpu_seconds(self.server)
        async with self.measured("connects"):
            count = await flood(self.server.address, seconds)
        # Other than a latency it does not depend on what else runs.
        each = (cpu_seconds(self.server) - used) / count
        self.figures["processor time of a connect"] = ms(each)
        self.figures["connects a second"] = round(count / seconds)
        for wire in residents:
            try:
                await wire.fence()
            except (OSError, Closed) as problem:
                self.problems.append(f"connects: a session was lost: {problem!r}")
        for wire in residents:
            wire.close()
        held = await self._drained(2)
        if held > 2:
            self.problems.append(f"connects: {held} connections stay")

    async def _drained(self, most: int) -> int:
        for _ in range(100):
            held = (await self.server.holdings()).connections
            if held <= most:
                break
            await asyncio.sleep(0.1)
        return held

    # --- idle connections -------------------------------------------------------------------

    async def idle(self, count: int) -> None:
        """Have so many connections that say nothing."""
        before = await self.server.holdings()
        async with self.measured("idle"):
            crowd = [await self._silent() for _ in range(count)]
            await asyncio.sleep(2)
        after = await self.server.holdings()
        each = (after.memory - before.memory) / count
        self.figures["idle connections"] = after.connections - before.connections
        self.figures["memory of an idle connection"] = f"{each / 1024:.1f} KiB"
        if after.connections - before.connections != count:
            self.problems.append(f"idle: {after.connections} of {count} connections are there")
        if each > PER_IDLE:
            self.problems.append(f"idle: each takes {each / 1024:.1f} KiB")
        for sock in crowd:
            sock.close()
        await self._drained(2)

    async def _silent(self) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, self.server.address)
        return sock

    # --- restarts ---------------------------------------------------------------------------

    async def restarts(self, count: int) -> None:
        """Have all devices come back at once, after the server was killed."""
        ids = [await self._device() for _ in range(count)]
        self.server.restart()
        self._pulse, _ = await self.server.dial.resume(self._pulse.push_id)
        ended: list[float] = []
        began = time.monotonic()

        async def back(push_id: str) -> None:
            wire, _ = await self.server.dial.resume(push_id)
            ended.append(time.monotonic() - began)
            wire.close()

        used = cpu_seconds(self.server)
        async with self.measured("restarts"):
            await asyncio.gather(*map(back, ids))
        each = (cpu_seconds(self.server) - used) / count
        self.figures["processor time of a restart"] = ms(each)
        took = max(ended)
        self.figures["devices that restart at once"] = count
        self.figures["until the last is back"] = f"{took:.2f} s"
        if took > BACK * count / 1000:
            self.problems.append(f"restarts: the last was back after {took:.1f} s")

    async def _device(self) -> str:
        wire = await self.server.dial.user(started=True)
        wire.close()
        return wire.push_id

    # --- logins -----------------------------------------------------------------------------

    async def logins(self, seconds: float) -> None:
        """Log in so often, every second one with a wrong password."""
        # Several, for guesses at one account go in turn; half of them are guessed at.
        phones = [(await self.server.dial.user()).phone for _ in range(ACCOUNTS)]
        outcomes: Counter[str] = Counter()

        async def login(number: int) -> None:
            await asyncio.sleep(number / LOGINS)
            wire = await self.server.dial()
            right = number % 2 == 0
            password = PASSWORD if right else "Wrong-5512"
            phone = phones[number % ACCOUNTS]
            await wire.send_line({"cmd": "login", "phone": phone, "password": password})
            reply = await wire.reply(LOGIN_PATIENCE)
            wire.close()
            status = reply["status"]
            outcomes["limited" if status == 4290 else "answered"] += 1
            if status not in ((1, 4290) if right else (10000, 4290)):
                self.problems.append(f"logins: {reply}")
            if status == 4290 and not reply.get("retryAfter"):
                self.problems.append(f"logins: no retryAfter: {reply}")

        async with self.measured("logins"):
            await asyncio.gather(*(login(number) for number in range(int(seconds * LOGINS))))
        self.figures["logins a second"] = LOGINS
        self.figures["logins answered"] = outcomes["answered"]
        self.figures["logins told to wait"] = outcomes["limited"]


async def flood(address: Address, seconds: float) -> int:
    """Connect and reset from processes of their own; gives how often."""
    command = (sys.executable, "-c", FLOODER, address[0], str(address[1]), str(seconds))
    pipe = asyncio.subprocess.PIPE
    made = [await asyncio.create_subprocess_exec(*command, stdout=pipe) for _ in range(FLOODERS)]
    return sum(int(out) for out, _ in await asyncio.gather(*(one.communicate() for one in made)))


FLOODER = """
import socket, sys, time
end, count = time.monotonic() + float(sys.argv[3]), 0
while time.monotonic() < end:
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes((1, 0, 0, 0, 0, 0, 0, 0)))
        count += 1
    except OSError:
        pass
print(count)
"""


def running(program: str = "", **settings: object) -> AbstractContextManager[Watched]:
    """Run a server that lets one address come as often as it likes."""
    # As many lines of the log as by default.
    told = {"log_rate": 100, "limits_login_idle": 600, "auth_bcrypt_cost": COST, **settings}
    return serving(lambda folder: Watched(folder, program, **told))


async def control() -> list[str]:
    """Run logins against a server that hashes on its loop."""
    with running(HASHING) as server:
        one = Flood(server)
        await one.calm(1)
        try:
            await one.logins(0.3)
        except TimeoutError:
            return ["logins: a heartbeat got no answer at all"]
        return one.problems


async def everything(
    seconds: float, idle: int, devices: int, logins: float
) -> tuple[Flood, Flood, list[str]]:
    """Run all floods, then the control."""
    with running(auth_bcrypt_cost=4) as server:
        one = Flood(server)
        await one.calm(3)
        await one.idle(idle)
        await one.connects(seconds)
        await one.restarts(devices)
    with running() as server:
        two = Flood(server)
        await two.calm(3)
        await two.logins(logins)
    return one, two, await control()


def main() -> int:
    """Run from the command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.net.floods", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--idle", type=int, default=10000)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--logins", type=float, default=10, help="seconds of them")
    options = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    load = os.getloadavg()[0]
    work = everything(options.seconds, options.idle, options.devices, options.logins)
    one, two, caught = asyncio.run(work)
    figures = {**two.figures, **one.figures, "load average": f"{load:.1f}"}
    problems = [*one.problems, *two.problems]
    found = f"caught: {caught[0]}" if caught else "not caught"
    return conclude("net-floods", figures, problems, {"passwords hashed on the loop": found})


if __name__ == "__main__":
    sys.exit(main())
