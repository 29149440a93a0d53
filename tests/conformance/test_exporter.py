"""The HTTP side of monitoring: its paths, its formats, and that it cannot be held up."""

import asyncio
import gzip
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pushd import exporter
from pushd.errors import Refusal
from pushd.exporter import MOST, Exporter
from pushd.health import Health, Shared
from pushd.metrics import METRICS as ROWS
from pushd.metrics import Sources
from pushd.status import Status
from pushd.store.health import Census

from .process import Process, StartServer
from .scrape import METRICS, address, get, request, series
from .wire import frame, text

# Paths and formats


async def test_paths(server: StartServer) -> None:
    """There are three paths, for GET; nothing else is there."""
    own = server(**METRICS)
    assert await get(own, "/healthz") == (200, "ok\n")
    assert await get(own, "/readyz") == (200, "ok\n")
    status, body = await get(own, "/")
    assert status == 404
    assert "/metrics" in body
    for path in ("/healthz", "/metrics"):
        status, _, _ = await asyncio.to_thread(request, address(own), path, {}, "POST")
        assert status == 405, path
    status, body = await get(own, "/metrics?name[]=pushd_sessions")
    assert (status, body.count("\n")) == (200, 3)


async def test_formats(server: StartServer) -> None:
    """OpenMetrics and gzip are there for who asks for them."""
    own = server(**METRICS)
    _, body, headers = await asyncio.to_thread(
        request, address(own), "/metrics", {"Accept": "application/openmetrics-text;version=1.0.0"}
    )
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    _, packed, headers = await asyncio.to_thread(
        request, address(own), "/metrics", {"Accept-Encoding": "gzip"}
    )
    assert headers["Content-Encoding"] == "gzip"
    assert b"pushd_sessions 0.0\n" in gzip.decompress(packed)


async def test_off_unless_wanted(server: StartServer) -> None:
    """Without the setting there is no port for it."""
    own, other = server(), server(**METRICS)
    assert "event=metrics" not in own.log_text()
    assert (listening(own), listening(other)) == (1, 2)


def listening(own: Process) -> int:
    """How many ports a process listens on."""
    assert own.process is not None
    files = Path(f"/proc/{own.process.pid}/fd")
    # Columns of the system's table: 3 is the state, of which 0A is "listens", and 9 the inode.
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A"}
    return len(sockets & {os.readlink(file) for file in files.iterdir()})


async def test_an_address_in_use_is_told(server: StartServer) -> None:
    """An address that cannot be had ends the start with one line that names the setting."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RuntimeError, match=r"metrics\.listen: 127\.0\.0\.1:\d+: cannot listen"):
            server(metrics_listen=f"127.0.0.1:{port}")


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--check-config"], []], ids=["check", "start"])
def test_the_extra_is_missing(tmp_path: Any, flags: list[str]) -> None:
    """Without prometheus-client a server that should tell metrics says what to install."""
    program = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from pushd.cli import pushd; pushd(prog_name='pushd')"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, "--data", str(tmp_path / "data"), *flags],
        env={**os.environ, "PUSHD_METRICS_LISTEN": "127.0.0.1:0"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert run.returncode == 78
    needs = "metrics.listen: needs prometheus-client: pip install 'pushd[metrics]'"
    assert run.stderr == f"PUSHD_METRICS_LISTEN: {needs}\n"
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool (Debian: prometheus)")
async def test_prometheus_has_no_objection(server: StartServer) -> None:
    """Its linter has nothing against names, types and help."""
    own = server(**METRICS)
    await own.dial.pair()
    _, text = await get(own, "/metrics")
    done = await asyncio.to_thread(
        subprocess.run,
        ["promtool", "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# Health


async def test_not_ready_while_the_store_cannot_be_written(server: StartServer) -> None:
    """The probe is a real write: while another program has the database, it is not ready.

    It is healthy all that time, and ready again once the database is free.
    """
    own = server(**METRICS)
    other = sqlite3.connect(own.data / "pushd.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    status, body = await get(own, "/readyz")
    assert (status, body) == (503, "the store has not answered for 2 s\n")
    assert await get(own, "/healthz") == (200, "ok\n")
    assert (await series(own))["pushd_ready"] == 0
    other.execute("ROLLBACK")
    other.close()
    assert await get(own, "/readyz") == (200, "ok\n")


async def test_not_ready_while_stopping(server: StartServer) -> None:
    """A server that is going down says so, for as long as it still answers what it has read."""
    own = server(store_busy_seconds=5, **METRICS)
    a, b = await own.dial.pair()
    other = sqlite3.connect(own.data / "pushd.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    await a.send_line(frame([text(b.user_id, "hi")], a.push_id))
    while (await series(own))["pushd_writer_waiting"] == 0:
        pass
    own.signal(signal.SIGTERM)
    deadline = time.monotonic() + 5
    while (found := await get(own, "/readyz")) != (503, "stopping\n"):
        assert time.monotonic() < deadline, found
    assert (await series(own))["pushd_ready"] == 0
    other.execute("ROLLBACK")
    other.close()
    assert await own.ended() == 0


class Rows:
    """What a server would be asked, and what it answers."""

    def __init__(self) -> None:
        self.problem: Exception | None = None  # why the store takes no write
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()
        writer = SimpleNamespace(failed=None)
        store = SimpleNamespace(health=self, writer=writer)
        ctx = SimpleNamespace(store=store, hub=SimpleNamespace(started=list))
        self.service: Any = SimpleNamespace(ctx=ctx, draining=False, lame=False)

    async def probe(self) -> None:
        self.asked += 1
        await self.gate.wait()
        if self.problem is not None:
            raise self.problem

    async def census(self, online: list[int]) -> Census:
        return Census()


async def test_reasons() -> None:
    """What a message would meet is why the server is not ready."""
    rows = Rows()
    health = Health(rows.service, refresh=lambda: 0)
    assert await health.ready() == ""
    rows.problem = Refusal(Status.DISK_FULL)
    assert await health.ready() == f"the store cannot be written: {rows.problem}"
    rows.problem = None
    assert await health.ready() == ""
    rows.service.lame = True
    assert await health.ready() == "lame duck: clients are sent away"
    rows.service.lame = False
    rows.service.ctx.store.writer.failed = OSError()
    assert await health.ready() == "the store has failed"
    rows.service.draining = True
    asked = rows.asked
    assert await health.ready() == "stopping"
    assert rows.asked == asked


async def test_a_question_is_asked_once_for_all() -> None:
    """However many ask at once, and again soon, the store is asked once; any of them may go."""
    rows = Rows()
    health = Health(rows.service, refresh=lambda: 3600)
    rows.gate.clear()
    tasks = [asyncio.create_task(health.ready()) for _ in range(50)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    rows.gate.set()
    assert await asyncio.gather(*tasks[1:]) == [""] * 49
    assert await health.ready() == ""
    assert rows.asked == 1


async def test_a_slow_question_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A question that took a second is not repeated for twenty, whatever the setting says."""
    now, asked = 100.0, 0

    async def work() -> None:
        nonlocal now, asked
        asked += 1
        now += 1.0

    monkeypatch.setattr("pushd.health.time.monotonic", lambda: now)
    shared = Shared(work, lambda: 0.0)
    await shared.fresh()
    now += 19.9
    await shared.fresh()
    assert asked == 1
    now += 0.2
    await shared.fresh()
    assert asked == 2


# Bounds


class Served:
    """An exporter of this process, without a server behind it."""

    def __init__(self, health: Health) -> None:
        sources = Sources(health._service, health, {})
        self.exporter = Exporter("127.0.0.1:0", sources, asyncio.get_running_loop())
        host, port = self.exporter.address.split(":")
        self.address = (host, int(port))

    async def get(self, path: str) -> tuple[int, bytes]:
        status, body, _ = await asyncio.to_thread(request, self.address, path)
        return status, body


@pytest.fixture
async def served() -> AsyncIterator[Callable[[Health], Served]]:
    """Serve the health of something; it is closed after the test."""
    made: list[Served] = []

    def serve(health: Health) -> Served:
        made.append(Served(health))
        return made[-1]

    yield serve
    for one in made:
        await one.exporter.close()


@pytest.mark.slow
async def test_a_loop_that_stands_still(served: Callable[[Health], Served]) -> None:
    """A loop that does not turn is told from outside, without its help."""
    health = Health(Rows().service, refresh=lambda: 0)
    one = served(health)
    assert await one.get("/healthz") == (200, b"ok\n")
    health.turned -= 7
    assert await one.get("/healthz") == (503, b"the loop has not turned for 7 s\n")
    assert await one.get("/readyz") == (503, b"the loop has not turned for 7 s\n")
    assert 6 < health.worst < 8


@pytest.mark.slow
async def test_scrapers_that_hang(
    served: Callable[[Health], Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some may hang; more are refused at once; who hangs is cut, also who sends byte by byte."""
    monkeypatch.setattr(exporter, "DEADLINE", 1.0)
    one = served(Health(Rows().service, refresh=lambda: 0))
    hanging = [socket.create_connection(one.address) for _ in range(MOST)]
    for sock in hanging:
        sock.send(b"GET /healthz HTTP/1.0\r\nX: ")
    deadline = time.monotonic() + 5
    while (found := await one.get("/healthz"))[0] != 503:
        assert time.monotonic() < deadline, found
    begin = time.monotonic()
    cut = 0
    while cut < MOST and time.monotonic() - begin < 5:
        cut = 0
        for sock in hanging:
            try:
                sock.send(b"x")
            except OSError:
                cut += 1
        await asyncio.sleep(0.02)  # a byte now and then
    assert cut == MOST
    assert time.monotonic() - begin < 3
    assert await one.get("/healthz") == (200, b"ok\n")
    for sock in hanging:
        sock.close()


@pytest.mark.slow
async def test_closing_does_not_wait_for_them(served: Callable[[Health], Served]) -> None:
    """Who hangs is cut at the end, and the port is free at once."""
    one = served(Health(Rows().service, refresh=lambda: 0))
    with socket.create_connection(one.address) as sock:
        sock.send(b"GET ")
        assert await one.get("/healthz") == (200, b"ok\n")
        begin = time.monotonic()
        await one.exporter.close()
        assert time.monotonic() - begin < 2
        assert await asyncio.to_thread(sock.recv, 10) == b""
    with pytest.raises(ConnectionRefusedError):
        await one.get("/healthz")


async def test_the_loop_serves_beside_a_hung_scraper(server: StartServer) -> None:
    """Hung scrapers cost clients nothing."""
    own = server(**METRICS)
    hanging = [socket.create_connection(address(own)) for _ in range(MOST)]
    a = await own.dial()
    begin = time.monotonic()
    for _ in range(100):
        await a.fence()
    assert time.monotonic() - begin < 3
    for sock in hanging:
        sock.close()


# Names


def test_names() -> None:
    """Names follow the rules: a prefix, counters end in _total, units are spelt out."""
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert row.name.startswith("pushd_")
        assert (row.kind == "counter") == row.name.endswith("_total"), row.name
        assert not row.name.endswith(("_ms", "_kb", "_mb", "_count", "_sum", "_bucket")), row.name
