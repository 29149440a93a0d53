"""The disk under the server: real SQLite on real files, with faults at named points.

Functions of the store run in the simulation's one thread, each after a seeded wait and answered
after another, one at a time a connection: as with a thread of its own, only that the order comes
from the seed. The writer's connection passes through `Db`, where a commit may be the last thing
that happens, a statement may fail, and a power cut takes what was not synced.
"""

import asyncio
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pushd.store.engine import FILE, Worker
from tests.sim.loop import Life
from tests.sim.points import Points

WAL = f"{FILE}-wal"
SECTOR = 512
HEAD = 32  # bytes of a log that name its generation
WRITES = ("INSERT", "UPDATE", "DELETE")
HOP = 0.002  # seconds that a thread takes to begin or to tell its result, at most
SLOW = 1.5  # the same of a slow disk


class Killed(BaseException):
    """The process ended here."""


def failure(code: int) -> sqlite3.OperationalError:
    """Make the error that SQLite raises with a code."""
    problem = sqlite3.OperationalError(f"injected {code}")
    problem.sqlite_errorcode = code  # type: ignore[attr-defined]
    return problem


class Disk:
    """The files of a server from start to start."""

    def __init__(self, folder: Path, rng: random.Random, points: Points) -> None:
        self.root = folder
        self.rng, self.points = rng, points
        self.number = 0  # of the start
        self.folder = folder / "0"
        self.full = False  # nothing more fits, but what the reserve gave
        self.busy = 0  # attempts for which another program holds the database
        self.kill: Callable[[bool], None] = lambda power: None  # ends the server
        self.acks = False  # the batch under way holds acks
        self.room = 0  # writes that fit on a full disk once the reserve is given up
        self.watched = False  # what is synced is kept, for power cuts
        self.synced: tuple[bytes, bytes] | None = None  # database and log as they are for certain
        self._seen = (0, 0, b"")

    def begin(self) -> None:
        """Prepare for a start."""
        self.folder.mkdir(exist_ok=True)
        self.full, self.busy, self.acks, self.synced = False, 0, False, None

    def fill(self) -> None:
        """Let nothing more fit."""
        self.full, self.room = True, self.rng.choice((5, 50, 500))

    def check_space(self) -> None:
        """Fail as a full disk does; the reserve, once it is given up, takes some writes."""
        if not (self.folder / "reserve").exists() and self.room:
            self.room -= 1
            return
        raise failure(sqlite3.SQLITE_FULL)

    def image(self, *, power: bool, torn: bool = False) -> None:
        """Let the next start find what a crash leaves: all that was written, or what was synced."""
        old = self.folder
        self.number += 1
        self.folder = self.root / str(self.number)
        self.folder.mkdir()
        database, log = _read(old / FILE), _read(old / WAL)
        if power and self.synced is not None:
            if torn and database == self.synced[0]:
                log = self._tear(self.synced[1], log)
            else:
                database, log = self.synced
        (self.folder / FILE).write_bytes(database)
        if log:
            (self.folder / WAL).write_bytes(log)

    def _tear(self, old: bytes, new: bytes) -> bytes:
        """Mix the sectors of two states of a log."""
        # One that begins anew has its head synced before any frame is written: else frames of
        # the generation before could count again (SQLite's ticket ff5be73dee).
        old = new[:HEAD] + old[HEAD:]
        torn = bytearray(new)
        for start in range(0, len(new), SECTOR):
            if self.rng.random() < 0.5:
                kept = old[start : start + SECTOR]
                torn[start : start + SECTOR] = kept.ljust(min(SECTOR, len(new) - start), b"\0")
        return bytes(torn)

    def drop_old(self) -> None:
        """Remove the files of starts that are over."""
        for path in self.root.iterdir():
            if path != self.folder:
                shutil.rmtree(path)

    def note_sync(self, db: sqlite3.Connection) -> None:
        """Keep what is certain now, if the commit was synced."""
        if not self.watched:
            return
        database = self.folder / FILE
        stat = database.stat()
        log = _read(self.folder / WAL)
        # Times are coarse; but a log that begins anew has another head.
        seen = (stat.st_size, stat.st_mtime_ns, log[:HEAD])
        # A checkpoint syncs the log before it writes the database, whatever the setting.
        if db.execute("PRAGMA synchronous").fetchone()[0] < 2 and seen == self._seen:
            return
        kept = self.synced
        same = seen == self._seen and kept is not None
        image = kept[0] if same and kept is not None else database.read_bytes()
        self._seen = seen
        self.synced = (image, log)


class Db:
    """The writer's connection."""

    def __init__(self, db: sqlite3.Connection, disk: Disk) -> None:
        self._db, self._disk = db, disk
        self._changes = 0  # rows that were changed before this transaction

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        """Run a statement, or fail as a bad disk does."""
        disk = self._disk
        if sql == "COMMIT":
            return self._commit()
        if sql == "BEGIN IMMEDIATE":
            disk.acks = False
            self._changes = self._db.total_changes
            if disk.busy:
                disk.busy -= 1
                raise failure(sqlite3.SQLITE_BUSY)
            if disk.points.hit("busy", 0.01):
                disk.busy = disk.rng.choice((1, 1, 2, 5))
                raise failure(sqlite3.SQLITE_BUSY)
        elif disk.full and sql.startswith(WRITES) and disk.rng.random() < 0.3:
            disk.check_space()
        elif sql.startswith("INSERT INTO message") and disk.points.hit("bad_statement", 0.02):
            raise failure(sqlite3.SQLITE_CONSTRAINT)
        return self._db.execute(sql, *args)

    def _commit(self) -> sqlite3.Cursor:
        disk = self._disk
        points = disk.points
        if disk.full and self._db.total_changes != self._changes:
            disk.check_space()
        if points.hit("crash_before_commit", 0.01):
            self._die(power=False)
        if disk.acks and points.hit("ack_applied_not_synced", 0.03):
            self._die(power=False)
        if points.hit("sync_failed", 0.004):
            raise failure(sqlite3.SQLITE_IOERR_FSYNC)
        done = self._db.execute("COMMIT")
        if points.hit("sync_failed_late", 0.004):
            # It is written all the same: after the next start it is there.
            raise failure(sqlite3.SQLITE_IOERR_FSYNC)
        if points.hit("torn_commit", 0.01):
            self._die(power=True, torn=True)
        disk.note_sync(self._db)
        if points.hit("after_commit_before_reply", 0.01):
            self._die(power=False)
        if points.hit("power_cut", 0.01):
            self._die(power=True)
        return done

    def _die(self, *, power: bool, torn: bool = False) -> None:
        self._disk.image(power=power, torn=torn)
        self._disk.kill(power)
        raise Killed


class SimWorker(Worker):
    """A connection without a thread."""

    def __init__(
        self, disk: Disk, life: Life, connector: Callable[[], Any], iter_chunk_size: int
    ) -> None:
        self._disk, self._life = disk, life
        self._open = connector
        self._connection = None  # of aiosqlite, which has nothing to say here
        self._db: Any = None
        self._lock = asyncio.Lock()

    def __await__(self) -> Any:
        return self._begin().__await__()

    async def _begin(self) -> "SimWorker":
        await self._wait(HOP)
        db = self._open()
        # The first one writes.
        self._db = db if self._life.workers else Db(db, self._disk)
        self._life.workers.append(db)
        return self

    async def run(self, function: Any, *args: Any, **kw: Any) -> Any:
        """Run a function when its turn has come."""
        points = self._disk.points
        page = getattr(getattr(function, "func", None), "__name__", "") == "_swap"
        page = page and function.args[0].__name__ == "_page"
        async with self._lock:
            await self._wait(HOP)
            if not page and points.hit("slow_commit", 0.03):
                await self._wait(SLOW)
            if page and points.hit("page_read_late", 0.2):
                await self._wait(SLOW)
            if self._life.dead or self._db is None:
                raise asyncio.CancelledError
            try:
                result = function(self._db, *args, **kw)
            except Killed:
                # The life is over; its tasks are being ended.
                await asyncio.Event().wait()
        late = 0.15 if isinstance(self._db, Db) else 0.05
        if (page and points.hit("page_read_before_offer", 0.2)) or points.hit("late_answer", late):
            await self._wait(SLOW)
        await self._wait(HOP)
        return result

    async def _wait(self, most: float) -> None:
        chance = self._disk.rng.random()
        # A timer is dear, and often there is no wait at all.
        await asyncio.sleep(most * chance if most > HOP or chance < 0.4 else 0)

    async def close(self) -> None:
        """Close the connection."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def join(self) -> None:
        """Wait for nothing."""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
