"""Faults of the machine, on real processes: failed syncs, a full disk, a locked database.

`pushd` is run as a process on a folder of its own. Failed syncs are injected by strace, a full
disk is a small tmpfs; where the machine does not allow that, the test is skipped.
"""

import asyncio
import contextlib
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from pushd.clock import Clock
from pushd.config import Config, Limits, Server
from pushd.config import Store as StoreConfig
from pushd.draft import drafts
from pushd.errors import Refusal
from pushd.model import Accepted, Actor, Failed, InfoIn, MessageIn
from pushd.status import Status
from pushd.store import Post, Store
from pushd.store.journal import Journal
from tests.conformance.process import Process
from tests.conformance.scrape import METRICS, get, series
from tests.conformance.wire import Closed, Frame, Wire, text

FILE = "pushd.db"
DISK = 8 << 20  # bytes
CALLS = "fdatasync,fsync,sendto,sendmsg,write,writev,pwrite64"

StartServer = Callable[..., Process]
Hold = Callable[[Process], sqlite3.Connection]


class Traced(Process):
    """A server under strace; `injected` makes some of its calls fail."""

    injected: tuple[str, ...] = ()

    @property
    def trace(self) -> Path:
        return self.folder / "trace"

    def _command(self, ports: Path) -> list[str]:
        # -D: the server is our child and strace is not, so that signals and exit codes are its own.
        strace = ["strace", "-D", "-f", "-qq", "-s", "200", "-o", str(self.trace)]
        faults = [word for fault in self.injected for word in ("-e", f"inject={fault}")]
        return [*strace, "-e", f"trace={CALLS}", *faults, *super()._command(ports)]


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Start servers, by default each in a folder of its own; they are killed after the test."""
    with ExitStack() as stack:

        def start(
            kind: type[Process] = Process, folder: Path | None = None, **settings: Any
        ) -> Process:
            if folder is None:
                # A short path: a Unix socket's name inside it holds 107 bytes.
                folder = tmp_path_factory.mktemp("own")
            own = kind(folder, **settings)
            stack.callback(own.kill)
            stack.callback(own.dial.close)
            own.start()
            return own

        yield start


@pytest.fixture
def strace(tmp_path: Path) -> None:
    """Skip where processes cannot be traced."""
    command = ["strace", "-D", "-f", "-o", str(tmp_path / "probe"), "true"]
    if not shutil.which("strace") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs strace, and the right to trace")


def problems(process: Process) -> list[str]:
    """The lines that tell of a failure; nothing but lines of the log may be there."""
    lines = process.log_text().splitlines()
    assert all(line.startswith("ts=") for line in lines), lines
    return [line for line in lines if "level=error" in line or "level=critical" in line]


async def all_waiting(process: Process, push_id: str) -> list[str]:
    """The texts that wait for a device, after which they are acked."""
    wire, reply = await process.dial.resume(push_id)
    messages = await wire.drain(reply["queued"])
    wire.close()
    return [message["info"][0]["content"] for message in messages]


# --- the sync comes before the "ok" -----------------------------------------------------------


def unsynced(trace: str) -> int:
    """Count the confirmations that no completed sync came before, since the one before them."""
    synced, count = False, 0
    for line in trace.splitlines():
        if re.search(r"f(data)?sync(\(.*| resumed>.*)\) += 0$", line):
            synced = True
        elif r"\"msgId\"" in line and r"\"result\"" in line:
            count += not synced
            synced = False
    return count


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.usefixtures("strace")
async def test_each_confirmation_comes_behind_its_sync(start: StartServer, loop: str) -> None:
    """Between the send and the "ok" of each message lies a sync that has completed."""
    own = start(Traced, loop=loop)
    a, b = await own.dial.pair()
    for number in range(10):
        await a.say(b.user_id, f"message {number}")
    own.kill()
    assert isinstance(own, Traced)
    trace = own.trace.read_text()
    assert trace.count(r"\"result\":[{\"msgId\"") == 10
    assert unsynced(trace) == 0
    # Control: without the syncs of the last five the same trace is found wanting.
    head, at = trace, 0
    for _ in range(5):
        at = head.rindex(r"\"result\":[{\"msgId\"")
        head = head[:at]
    tail = re.sub(r".*f(data)?sync.*\n", "", trace[at:])
    assert unsynced(trace[:at] + tail) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("at", [6, 10])
@pytest.mark.usefixtures("strace")
async def test_after_a_failed_sync_nothing_is_confirmed(start: StartServer, at: int) -> None:
    """The batch whose sync failed gets no "ok"; the server ends with code 1 and one line."""
    own = start()
    a, b = await own.dial.pair()
    own.dial.close()
    assert own.stop() == 0
    traced = Traced(own.folder)
    traced.injected = (f"fdatasync:error=EIO:when={at}",)
    try:
        traced.start()
        sender, _ = await traced.dial.resume(a.push_id)
        confirmed = await _send_until_refused(sender, b.user_id)
        assert await traced.ended() == 1
    finally:
        traced.dial.close()
        traced.kill()
    assert 1 <= len(confirmed) < at
    _, failure, rest = traced.trace.read_text().partition("(INJECTED)")
    assert failure
    assert r"\"result\":[{\"msgId\"" not in rest
    [line] = problems(traced)
    assert "the store failed" in line
    own.start()
    arrived = await all_waiting(own, b.push_id)
    assert arrived[: len(confirmed)] == confirmed
    assert len(arrived) <= len(confirmed) + 1


async def _send_until_refused(sender: Wire, to: str) -> list[str]:
    """Send texts one by one; gives those that were confirmed."""
    confirmed: list[str] = []
    while len(confirmed) < 100:
        words = f"message {len(confirmed)}"
        try:
            reply = await sender.send([text(to, words)])
        except (Closed, ConnectionError):
            break
        if reply["status"] != 1:
            assert reply["status"] == Status.RESTARTING
            break
        confirmed.append(words)
    return confirmed


# --- a full disk ------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own of 8 MiB; skips where nothing can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def fill(a: Wire, to: str, confirmed: list[str]) -> Frame:
    """Send until the disk is full; gives the refusal."""
    for number in range(10_000):
        words = [f"{number} {part} " + "x" * 4000 for part in range(10)]
        reply = await a.send([text(to, each) for each in words])
        if reply["status"] != 1:
            return reply
        confirmed += words
    raise AssertionError("the disk is never full")


@pytest.mark.slow
async def test_a_full_disk_refuses_and_recovers(start: StartServer, small_disk: Path) -> None:
    """While full, sends get 4007 and all that needs no space goes on, over a crash too.

    Once there is space again sends are accepted within 5 s, and every confirmed message is there.
    """
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (3 << 20))
    own = start(folder=small_disk, store_reserve=1 << 20, store_checkpoint_pages=200, **METRICS)
    a, b = await own.dial.pair()
    confirmed: list[str] = []
    assert (await fill(a, b.user_id, confirmed))["status"] == Status.DISK_FULL
    assert len(confirmed) > 100
    got = [message["info"][0]["content"] for message in await b.take(100)]
    await _works_while_full(own, a, b)
    own.restart()
    a, _ = await own.dial.resume(a.push_id)
    b, reply = await own.dial.resume(b.push_id)
    assert reply["queued"] == len(confirmed) - 100
    assert (await fill(a, b.user_id, confirmed))["status"] == Status.DISK_FULL
    ballast.unlink()
    began = time.monotonic()
    reply = await a.send([text(b.user_id, "there is space again")])
    while reply["status"] != 1 and time.monotonic() < began + 5:
        assert reply["status"] == Status.DISK_FULL
        reply = await a.send([text(b.user_id, "there is space again")])
    assert reply["status"] == 1
    assert await get(own, "/readyz") == (200, "ok\n")
    got += [message["info"][0]["content"] for message in await b.take(len(confirmed) - 99)]
    assert got == [*confirmed, "there is space again"]
    assert own.stop() == 0
    # Not a line for each refusal, but for each time that it was full, before the restart and after.
    assert 2 <= len(problems(own)) <= 4
    assert all("the disk is full" in line for line in problems(own))
    with closing(sqlite3.connect(own.data / FILE)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def _works_while_full(own: Process, a: Wire, b: Wire) -> None:
    await a.heartbeat()
    await b.fence()
    again = await own.dial()
    await again.login(a.phone, a.password)
    history = await again.ok("history", userId=b.user_id, limit=5)
    assert len(history) == 5
    await again.ok("friends")
    refused = await again.send([text(b.user_id, "no space")])
    assert refused["status"] == Status.DISK_FULL
    again.close()
    resumed, reply = await own.dial.resume(b.push_id)
    assert reply["queued"] > 0
    resumed.close()
    status, reason = await get(own, "/readyz")
    assert (status, "full" in reason) == (503, True)
    assert (await series(own))["pushd_disk_full"] == 1


class Moved(Clock):
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> float:
        """Give monotonic seconds."""
        return self.seconds


async def test_a_full_database_refuses_what_grows_and_nothing_else(tmp_path: Path) -> None:
    """4007 for what needs space, in one batch with what does not; afterwards all works again."""
    clock = Moved()
    config = Config(server=Server(data=str(tmp_path)), store=StoreConfig(reserve=4096, readers=1))
    store = await Store.open(config, clock)
    store.start(lambda deliveries, signals: None)
    store.writer.journal.reserve._now = clock.now
    try:
        actor = Actor((await store.accounts.register("13800000000", b"hash", "")).id)
        await _limit(store, 1)
        assert await _fill(store) == Status.DISK_FULL
        assert not (tmp_path / "reserve").exists()
        small = store.accounts.set_privacy(actor, {"find_by_phone": False})
        large = asyncio.create_task(_fill(store))
        await small
        assert await large == Status.DISK_FULL
        await _limit(store, 1 << 30)
        assert await _fill(store) == Status.DISK_FULL  # tried again once a second
        clock.seconds += 1
        assert await _fill(store) == Status.SUCCESS
        assert (tmp_path / "reserve").exists()
    finally:
        await store.close()
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        assert db.execute("SELECT find_by_phone FROM account").fetchone() == (0,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


class Faulty:
    """The writer's connection, on which statements that hold `part` find the disk full."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.part = ""
        self.good = 0  # how many of them still succeed

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if self.part and self.part in statement:
            self.good -= 1
            if self.good < 0:
                problem = sqlite3.OperationalError("database or disk is full")
                problem.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise problem
        return self._db.execute(statement, *values)


@contextlib.asynccontextmanager
async def faulty_store(folder: Path, clock: Clock, **settings: int) -> AsyncIterator[Store]:
    """An open store whose writer's connection is a `Faulty`."""
    config = Config(
        server=Server(data=str(folder)), store=StoreConfig(reserve=0, readers=1, **settings)
    )
    store = await Store.open(config, clock)
    store.start(lambda deliveries, signals: None)
    journal = store.writer.journal
    journal.reserve._now = clock.now
    journal.db = Faulty(journal.db)  # type: ignore[assignment]
    try:
        yield store
    finally:
        await store.close()


def faulty(store: Store) -> Faulty:
    found = store.writer.journal.db
    assert isinstance(found, Faulty)
    return found


async def two_users(store: Store) -> tuple[Actor, Actor]:
    """Two friends without a device."""
    one, other = [
        Actor((await store.accounts.register(phone, b"hash", "")).id)
        for phone in ("13800000000", "13800000001")
    ]
    await store.friends.ask(other, one.account, "")
    await store.friends.accept(one, other.account)
    return one, other


async def test_acks_that_find_the_disk_full_are_written_later(tmp_path: Path) -> None:
    """An ack that even the reserve had no room for is committed once there is some."""
    clock = Moved()
    async with faulty_store(tmp_path, clock) as store:
        one, _ = await two_users(store)
        bound = await store.devices.create(
            one, b"token", "", most=1, online=(), answering=(), then=lambda bound: None
        )
        faulty(store).part = "INSERT INTO position (device, last"
        store.ack(bound.actor, 1, 1)
        await store.writer.barrier()
        assert _position(tmp_path) == (1, 0)
        faulty(store).part = ""
        clock.seconds += 1
        await store.writer.barrier()
        assert _position(tmp_path) == (1, 1)


async def test_what_was_committed_before_the_disk_was_full_stays_confirmed(tmp_path: Path) -> None:
    """Of lists that were handed in together but committed in two batches, each has its outcome."""
    async with faulty_store(tmp_path, Moved(), batch_rows=4) as store:
        one, other = await two_users(store)
        future: asyncio.Future[Post] = asyncio.get_running_loop().create_future()
        post = Post(one, future.set_result)
        for words in ("first", "second"):
            messages = [MessageIn(to_id=str(other.account), type="1", info=InfoIn("0", words))] * 4
            post.add(drafts(messages, one.account, Limits()))
        faulty(store).part = "INSERT INTO queue"
        faulty(store).good = 1
        store.post(post)
        await future
        assert post.error is None
        first, [failed] = post.results
        assert all(isinstance(row, Accepted) for row in first)
        assert isinstance(failed, Failed)
        assert failed.status == Status.DISK_FULL
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        query = "SELECT text FROM message WHERE text IN ('first', 'second')"
        assert db.execute(query).fetchall() == [("first",)] * 4


def _position(folder: Path) -> tuple[int, int]:
    with closing(sqlite3.connect(folder / FILE)) as db:
        query = "SELECT last, acked FROM position ORDER BY device DESC"
        last, acked = db.execute(query).fetchone()
        return last, acked


async def _limit(store: Store, pages: int) -> None:
    """Let the database have so many pages, or those that it has if these are more."""

    def change(journal: Journal) -> None:
        journal.db.execute(f"PRAGMA max_page_count={pages}")

    await store.writer.call(change, grows=False)


async def _fill(store: Store) -> Status:
    """Store something large."""

    def change(journal: Journal) -> None:
        journal.db.execute("INSERT INTO meta VALUES (?, ?)", (str(time.monotonic_ns()), "x" * 9999))

    try:
        await store.writer.call(change)
    except Refusal as problem:
        return problem.status
    return Status.SUCCESS


# --- another program --------------------------------------------------------------------------


@pytest.fixture
def other() -> Iterator[Callable[[Process], sqlite3.Connection]]:
    """Another program that holds the database for writing, until it ends its transaction."""
    with ExitStack() as stack:

        def hold(own: Process) -> sqlite3.Connection:
            db = sqlite3.connect(own.data / FILE, isolation_level=None)
            stack.enter_context(closing(db))
            db.execute("BEGIN IMMEDIATE")
            return db

        yield hold


@pytest.mark.slow
async def test_a_locked_database_delays_sends_and_nothing_else(
    start: StartServer, other: Hold
) -> None:
    """While another program holds the database sends wait, and heartbeats and reads go on."""
    own = start()
    a, b = await own.dial.pair()
    held = other(own)
    await a.send_line({"status": 1, "message": [text(b.user_id, "patience")]})
    began = time.monotonic()
    slowest = 0.0
    # Longer than one attempt at the lock takes.
    while time.monotonic() < began + 1.5:
        asked = time.monotonic()
        await b.heartbeat()
        await b.ok("whoami")
        slowest = max(slowest, time.monotonic() - asked)
    held.execute("COMMIT")
    reply = await a.reply()
    assert (reply["status"], reply["message"]) == (1, "ok")
    [got] = await b.expect_delivery()
    assert got["msgId"] == reply["result"][0]["msgId"]
    assert slowest < 0.5
    assert problems(own) == []


@pytest.mark.slow
async def test_a_database_locked_for_too_long_is_told(start: StartServer, other: Hold) -> None:
    """After `store.busy_seconds` sends get 5030 with retryAfter, are not stored, and work later."""
    own = start(store_busy_seconds=0.1)
    a, b = await own.dial.pair()
    held = other(own)
    refused = await a.send([text(b.user_id, "no", clientId="c1")])
    assert refused["status"] == Status.RESTARTING
    assert refused["retryAfter"] > 0
    held.execute("ROLLBACK")
    await a.say(b.user_id, "yes", clientId="c2")
    [got] = await b.expect_delivery(ack=True)
    assert got["info"][0]["content"] == "yes"
    await b.expect_nothing()
    assert problems(own) == []


@pytest.mark.slow
async def test_a_server_stops_while_its_database_is_locked(start: StartServer, other: Hold) -> None:
    """Acks that cannot be written do not keep the process, which would wait 10 s otherwise."""
    own = start()
    a, b = await own.dial.pair()
    await a.say(b.user_id, "hi")
    await b.expect_delivery()
    other(own)
    await b.ack()
    began = time.monotonic()
    own.signal()
    assert await own.ended() == 0
    assert time.monotonic() < began + 8
    assert problems(own) == []


# --- what cannot be started -------------------------------------------------------------------


def refusal(folder: Path, *more: str) -> str:
    """Start a server that must refuse: code 1 and exactly one line that says why."""
    command = [sys.executable, "-m", "pushd", "--listen", "127.0.0.1:0", "--data", str(folder)]
    command += more
    done = subprocess.run(command, capture_output=True, timeout=30, text=True)
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if "level=info" not in line]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.slow
def test_a_second_server_on_one_folder_is_refused(start: StartServer) -> None:
    """The folder belongs to the server that runs; that one is not disturbed."""
    own = start()
    assert "another pushd uses this folder: stop that one" in refusal(own.data)
    assert own.stop() == 0
    assert problems(own) == []


@pytest.mark.slow
def test_a_newer_store_is_refused(start: StartServer) -> None:
    """An older program says that a newer one is needed."""
    own = start()
    own.stop()
    with closing(sqlite3.connect(own.data / FILE)) as db:
        db.execute("PRAGMA user_version=9999")
    line = refusal(own.data)
    assert "schema 9999" in line
    assert "install a newer one" in line


@pytest.mark.slow
def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """What lies in the place of the database is named, and not overwritten."""
    (tmp_path / FILE).write_text("dear diary\n" * 100)
    line = refusal(tmp_path)
    assert FILE in line
    assert "not a database: move it away" in line
    assert (tmp_path / FILE).read_text().startswith("dear diary")


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_refused(small_disk: Path) -> None:
    """A read-only disk is named, with what to do."""
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    line = refusal(small_disk)
    assert str(small_disk) in line
    assert "make it writable" in line


@pytest.mark.slow
def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """A data folder that cannot be made is named."""
    (tmp_path / "file").touch()
    assert "file" in refusal(tmp_path / "file")


@pytest.mark.slow
def test_ports_that_cannot_be_told_are_refused(tmp_path: Path) -> None:
    """A file for the ports that cannot be made ends the start in one line that names it."""
    ports = tmp_path / "nowhere" / "ports"
    line = refusal(tmp_path / "data", "--ports-file", str(ports))
    assert f"--ports-file {ports}: No such file or directory" in line


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 3, 6])
@pytest.mark.usefixtures("strace")
async def test_a_first_start_that_is_killed_is_done_by_the_next(tmp_path: Path, at: int) -> None:
    """Killed at its n-th write to the database, the next start finds nothing half-made."""
    traced = Traced(tmp_path)
    traced.injected = (f"pwrite64:signal=SIGKILL:when={at}",)
    with pytest.raises(RuntimeError, match="did not come up"):
        traced.start()
    own = Process(tmp_path)
    try:
        own.start()
        a, b = await own.dial.pair()
        await a.say(b.user_id, "hi")
    finally:
        own.dial.close()
        own.kill()
