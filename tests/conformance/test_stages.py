"""Stopping in stages under load, stopping while starting, and leaving as a lame duck."""

import asyncio
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest

from .authority import Authority, dial, logged
from .process import Process, StartServer
from .test_shutdown import SHUTDOWN
from .wire import Closed, Wire, client_id, content, frame, new_phone, text

LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])


class Crowd:
    """Clients of all kinds, good and bad, and what was confirmed to the good ones."""

    def __init__(self, own: Process) -> None:
        self.own = own
        self.receiver: Wire
        self.confirmed: set[str] = set()
        self.refused = 0  # lists answered with 5030
        self.idle: list[Wire] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.busy = asyncio.Event()  # many messages are confirmed

    async def gather(self) -> None:
        """Connect 200 that idle, 50 that send, 10 that do not read, and others that hang."""
        own = self.own
        self.receiver = await own.dial.user(started=True)
        slow = await own.dial.user(started=True)
        devices = [slow, *[await own.dial.device(slow) for _ in range(9)]]
        senders = [await own.dial.user(started=True) for _ in range(50)]
        own.stop()
        # Those who come back need no password; those who register now take long.
        own.settings["auth_bcrypt_cost"] = "13"
        own.start()
        back = [(await own.dial.resume(each.push_id))[0] for each in senders]
        for _ in range(5):
            await back[0].post(*(text(slow.user_id, "x" * 9_000) for _ in range(50)))
        for device in devices:
            stuck = await own.dial(receive_buffer=2048)
            await stuck.send_line(frame("restart", device.push_id))
        self.idle = [await own.dial() for _ in range(200)]
        await self._hang()
        self.tasks += [asyncio.create_task(self._send(each, at)) for at, each in enumerate(back)]
        await self.busy.wait()

    async def _hang(self) -> None:
        """Have a TLS handshake, passwords and an upload that are under way."""
        self.silent = dial(self.own.addresses[-1])
        for _ in range(6):
            wire = await self.own.dial()
            await wire.send_line({"cmd": "register", "phone": new_phone(), "password": "secret66"})
        upload, _ = await self.own.dial.resume(self.receiver.push_id)
        await upload.send_raw(b'{"cmd":"save_file","name":"x","content":"' + b"A" * 100_000)

    async def _send(self, wire: Wire, number: int) -> None:
        with suppress(Closed, OSError):
            for count in range(1_000_000):
                words = f"{number} {count}"
                one = text(self.receiver.user_id, words, clientId=client_id())
                reply = await wire.exchange(frame([one]))
                if reply["status"] == 5030:
                    self.refused += 1
                    assert reply["retryAfter"] > 0
                    return
                assert reply["status"] == 1, reply
                self.confirmed.add(words)
                if len(self.confirmed) >= 500:
                    self.busy.set()

    async def kept(self) -> set[str]:
        """Start the server again and return what the receiver gets."""
        self.silent.close()
        self.own.start()
        wire, reply = await self.own.dial.resume(self.receiver.push_id)
        return {content(each) for each in await wire.take(reply["queued"])}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("loop", "number"), [("uvloop", signal.SIGTERM), ("asyncio", signal.SIGINT)]
)
async def test_under_load(
    server: StartServer, tmp_path: Path, loop: str, number: signal.Signals
) -> None:
    """Exit 0 within 10 s although clients hang; the idle get the last frame, confirmed is kept."""
    crowd = Crowd(
        Authority(tmp_path).start(
            server, loop=loop, auth_strangers="allow", tls_handshake_seconds=60
        )
    )
    await crowd.gather()
    began = time.monotonic()
    crowd.own.signal(number)
    for wire in crowd.idle:
        assert await wire.rest() == [SHUTDOWN]
    assert await crowd.own.ended() == 0
    assert time.monotonic() - began < 10
    await asyncio.gather(*crowd.tasks)
    assert crowd.confirmed <= await crowd.kept()


async def test_a_second_signal_under_load(server: StartServer, tmp_path: Path) -> None:
    """It ends the process at once, and what was confirmed is kept."""
    crowd = Crowd(Authority(tmp_path).start(server, auth_strangers="allow"))
    await crowd.gather()
    crowd.own.signal()
    # The second one since it was started again on the way.
    logged(crowd.own, "event=stopping", 2)
    crowd.own.signal()
    began = time.monotonic()
    assert await crowd.own.ended() in (0, 1)
    assert time.monotonic() - began < 1
    await asyncio.gather(*crowd.tasks)
    assert crowd.confirmed <= await crowd.kept()


class TestWhileStarting:
    """A stop that comes before the server is ready."""

    def stop_after(
        self, own: Process, seconds: float, number: signal.Signals, words: str = ""
    ) -> int:
        """Start without waiting, signal after so long, and return the exit code.

        With `words` the time runs from when they are in the log.
        """
        before = own.log_text().count(words)
        with own.log.open("ab") as log:
            process = subprocess.Popen(
                own._command(own.folder / "ports"), env=own._environment(), stdout=log, stderr=log
            )
        try:
            if words:
                logged(own, words, before + 1)
            time.sleep(seconds)
            process.send_signal(number)
            return process.wait(15)
        finally:
            process.kill()
            process.wait(15)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_at_any_moment(self, server: StartServer, number: signal.Signals) -> None:
        """It ends by that signal or with 0, without a traceback of pushd's, and starts again."""
        own = server()
        own.stop()
        rng = random.Random(1)
        # Before Python has loaded pushd, the signal does what it does to any program, and an INT
        # leaves a traceback of Python's own.
        words = "event=starting" if number is signal.SIGINT else ""
        for _ in range(10):
            code = self.stop_after(own, rng.uniform(0, 0.2 if words else 0.6), number, words)
            assert code in (0, -number)
        own.start()
        assert own.stop() == 0

    def test_during_a_migration(self, server: StartServer) -> None:
        """A migration that takes long is given up in time, with 0; the next start does it."""
        own = server(server_stop_seconds=1, kind=SlowMigration)
        assert isinstance(own, SlowMigration)
        own.stop()
        shutil.rmtree(own.data)
        own.delay = 60
        began = time.monotonic()
        assert self.stop_after(own, 0.3, signal.SIGTERM, "event=starting") == 0
        assert time.monotonic() - began < 10
        assert "stopped while the store was being opened" in own.log_text()
        own.delay = 0
        own.start()
        assert own.stop() == 0


class SlowMigration(Process):
    """A server whose migrations take `delay` seconds each, in a transaction that is open."""

    delay = 0

    def _command(self, ports: Path) -> list[str]:
        python, _, _, *options = super()._command(ports)
        slow = (
            "import time; from pushd.store import engine; scripts = engine.migrations();"
            f"slow = f'SELECT wait({self.delay});'; real = engine.migrate;"
            "engine.migrations = lambda: [s + slow for s in scripts];"
            "engine.migrate = lambda db: (db.create_function('wait', 1, time.sleep), real(db));"
            "from pushd.__main__ import pushd; pushd()"
        )
        return [python, "-c", slow, *options]


class TestLameDuck:
    """USR2 sends clients away one after the other, so that they do not all come back at once."""

    @LOOPS
    async def test_gradually(self, server: StartServer, loop: str) -> None:
        """Spread over the time that is set, each with the last frame; then exit 0."""
        own = server(loop=loop, server_lame_duck_seconds=2)
        a, b = await own.dial.pair()
        crowd = [await own.dial() for _ in range(38)]
        await crowd[-1].fence()
        began = time.monotonic()
        own.signal(signal.SIGUSR2)
        ends = asyncio.gather(*(_end_of(wire, began) for wire in (a, b, *crowd)))
        while True:
            try:
                await own.dial()
            except OSError:
                break
            await asyncio.sleep(0.01)
        times = sorted(await ends)
        assert await own.ended() == 0
        for place, at in enumerate(times[:40], start=1):
            assert abs(at - 2 * place / 40) < 0.6, times

    async def test_served_until_the_end(self, server: StartServer) -> None:
        """Who has not been sent away yet is served as ever, and nothing confirmed is lost."""
        own = server(server_lame_duck_seconds=3)
        a, b = await own.dial.pair()

        async def talk(one: Wire, to: Wire) -> set[str]:
            done: set[str] = set()
            with suppress(Closed, OSError):
                while True:
                    words = f"to {to.user_id}: {len(done)}"
                    if (await one.exchange(frame([text(to.user_id, words)])))["status"] != 1:
                        break
                    done.add(words)
            return done

        own.signal(signal.SIGUSR2)
        # One of both is sent away first, perhaps at once; the other one goes on.
        confirmed = await asyncio.gather(talk(a, b), talk(b, a))
        assert any(confirmed)
        assert await own.ended() == 0
        own.start()
        for words, wire in zip(confirmed, (b, a), strict=True):
            again, reply = await own.dial.resume(wire.push_id)
            assert words <= {content(each) for each in await again.take(reply["queued"])}

    async def test_a_stop_ends_it(self, server: StartServer) -> None:
        """TERM while it goes on does not wait for the rest of its time."""
        own = server(server_lame_duck_seconds=600)
        wires = [await own.dial() for _ in range(5)]
        await wires[-1].fence()
        own.signal(signal.SIGUSR2)
        logged(own, "lame duck")
        began = time.monotonic()
        own.signal()
        await _all_told(wires)
        assert await own.ended() == 0
        assert time.monotonic() - began < 5

    async def test_nobody_connected(self, server: StartServer) -> None:
        """Without clients it is over at once."""
        own = server()
        own.signal(signal.SIGUSR2)
        assert await asyncio.wait_for(own.ended(), 3) == 0


async def _end_of(wire: Wire, began: float) -> float:
    """Return when the connection ended, which must be by the last frame."""
    assert await wire.rest() == [SHUTDOWN]
    return time.monotonic() - began


async def _all_told(wires: Iterable[Wire]) -> None:
    for wire in wires:
        assert await wire.rest() == [SHUTDOWN]
