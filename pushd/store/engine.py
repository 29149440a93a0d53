"""The database file: opening, migrating, and the threads that talk to it.

Exactly one connection writes and checkpoints (SQLite before 3.51.3 can lose commits when two do);
the others are read-only. Each connection lives in a thread of its own, kept by aiosqlite; `run`
takes a whole function there in one hop, since a hop a statement would cost more than SQLite does.
A lock on `pushd.lock` keeps a second server off the folder.
"""

import fcntl
import logging
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import aiosqlite

from ..errors import StoreRefused
from .wal import find_damage

P = ParamSpec("P")
R = TypeVar("R")

FILE = "pushd.db"
LOCK = "pushd.lock"
# A folder in the data folder while a backup is unpacked there: nothing is whole before it is gone.
RESTORING = "restoring"
# How long one attempt waits for another program that holds the database.
BUSY_MS = 1000

# aiosqlite logs statements with their parameters at DEBUG: contents and hashes.
logging.getLogger("aiosqlite").setLevel(logging.WARNING)


class Worker(aiosqlite.Connection):
    """A connection and its thread; functions run there one after the other."""

    async def run(
        self,
        function: Callable[Concatenate[sqlite3.Connection, P], R],
        *args: P.args,
        **kw: P.kwargs,
    ) -> R:
        """Run a function on the connection, in its thread; cancelling does not stop it."""
        # aiosqlite has no public way to run several statements in one hop.
        result: R = await self._execute(  # type: ignore[no-untyped-call]
            function, self._conn, *args, **kw
        )
        return result

    def join(self) -> None:
        """Wait for the end of a thread whose connection could not be opened."""
        self._thread.join()


class Lock:
    """The lock of a data folder; held until `release`, and by the process at most."""

    def __init__(self, folder: Path) -> None:
        try:
            self._file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as problem:
            raise StoreRefused(
                f"{folder}: {problem.strerror}: make it writable for this user, or name another"
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise StoreRefused(
                f"{folder}: another pushd uses this folder: stop that one, or name another"
            ) from None

    def release(self) -> None:
        """Let another server have the folder."""
        os.close(self._file)


async def open_writer(
    folder: Path,
    *,
    checkpoint_pages: int,
    log_bytes: int = 64 << 20,
    cache_bytes: int = 64 << 20,
    kind: type[Worker] = Worker,
) -> Worker:
    """Open and migrate the database; raises StoreRefused in one line."""

    def connector() -> sqlite3.Connection:
        check_log(folder)
        db = sqlite3.connect(
            folder / FILE, isolation_level=None, cached_statements=512, check_same_thread=False
        )
        try:
            db.execute(f"PRAGMA busy_timeout={BUSY_MS}")
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA foreign_keys=ON")
            db.execute("PRAGMA cell_size_check=ON")
            db.execute(f"PRAGMA wal_autocheckpoint={checkpoint_pages}")
            db.execute(f"PRAGMA journal_size_limit={log_bytes}")
            db.execute(f"PRAGMA cache_size=-{cache_bytes >> 10}")
            db.execute("PRAGMA temp_store=MEMORY")
            _empty_log(db)
            migrate(db)
        except BaseException:
            db.close()
            raise
        return db

    return await _open(kind, connector, folder / FILE)


def check_log(folder: Path) -> None:
    """Refuse a log whose database is gone, or that is damaged; SQLite drops both without a word."""
    database, log = folder / FILE, folder / f"{FILE}-wal"
    if not _size(log):
        return
    if not _size(database):
        raise StoreRefused(
            f"{database}: its log is there, but it is not: put the two together again,"
            " or move the log away"
        )
    # A connection that may write would put the rest of the log into the database when it closes.
    uri = f"{database.absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as db:
            db.execute(f"PRAGMA busy_timeout={BUSY_MS}")
            db.execute("PRAGMA user_version").fetchone()
            damage = find_damage(log, folder / f"{FILE}-shm", database)
    except sqlite3.Error as problem:
        raise StoreRefused(f"{database}: {advice(problem)}") from None
    if damage is not None:
        raise StoreRefused(
            f"{log}: damaged at byte {damage.offset}, with {damage.commits} commits or more behind"
            " that: restore a backup, or cut it off there to go on without them"
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


async def open_reader(
    folder: Path, functions: dict[str, Callable[..., Any]], *, kind: type[Worker] = Worker
) -> Worker:
    """Open a read-only connection beside the writer."""

    def connector() -> sqlite3.Connection:
        uri = f"{(folder / FILE).absolute().as_uri()}?mode=ro"
        db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA query_only=ON")
        db.execute("PRAGMA busy_timeout=5000")
        for name, function in functions.items():
            db.create_function(name, 1, function, deterministic=True)
        return db

    return await _open(kind, connector, folder / FILE)


async def _open(
    kind: type[Worker], connector: Callable[[], sqlite3.Connection], path: Path
) -> Worker:
    worker = kind(connector, iter_chunk_size=64)
    try:
        await worker
    except BaseException as problem:
        # Its thread says goodbye to the loop, which must still be there to hear it.
        worker.join()
        if isinstance(problem, sqlite3.Error):
            raise StoreRefused(f"{path}: {advice(problem)}") from None
        raise
    return worker


def advice(problem: sqlite3.Error) -> str:
    """Say why a database cannot be opened, and what to do about it."""
    match getattr(problem, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_NOTADB:
            return "it is not a database: move it away, or restore a backup in its place"
        case sqlite3.SQLITE_CORRUPT:
            return "it is damaged: restore a backup in its place"
        case sqlite3.SQLITE_FULL:
            return "the disk is full: make room, then start again"
        case sqlite3.SQLITE_BUSY:
            return "another program holds it: end that one, then start again"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN:
            return f"{problem}: make it and its folder writable for this user"
    return f"it cannot be opened: {problem}"


def database_size(db: sqlite3.Connection) -> int:
    """Give the bytes of a database, what is still in its log included."""
    pages: int = db.execute("PRAGMA page_count").fetchone()[0]
    size: int = db.execute("PRAGMA page_size").fetchone()[0]
    return pages * size


def tend_log(db: sqlite3.Connection, folder: Path, limit: int) -> int:
    """Give space of the write-ahead log back once it is over `limit` bytes.

    Run on the writer's connection. Returns the log's size when it could not be emptied, because
    a reader holds an old snapshot, else 0. Never waits for readers.
    """
    try:
        size = (folder / f"{FILE}-wal").stat().st_size
    except FileNotFoundError:
        return 0
    if size <= limit:
        return 0
    _, pages, moved = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if moved < pages:
        return size
    db.execute("PRAGMA busy_timeout=0")
    busy = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    db.execute(f"PRAGMA busy_timeout={BUSY_MS}")
    return size if busy else 0


def _empty_log(db: sqlite3.Connection) -> None:
    """Begin the log anew, so that nothing of an earlier life lies behind what is written now.

    A later look at a broken log would take it for what was confirmed.
    """
    try:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as problem:
        # The store starts also while the disk is full, or another program reads it.
        if failure_kind(problem) not in ("full", "busy"):
            raise


def failure_kind(problem: sqlite3.Error) -> str:
    """Say what an error of SQLite means: full, busy, failed (trust nothing), or a bug."""
    code = getattr(problem, "sqlite_errorcode", None)
    if code is None:
        return "bug"
    if code == sqlite3.SQLITE_IOERR_SHMSIZE:
        # The index of the log could not grow: nothing was written, the disk is full.
        return "full"
    match code & 0xFF:
        case sqlite3.SQLITE_FULL:
            return "full"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return "busy"
        case (
            sqlite3.SQLITE_IOERR
            | sqlite3.SQLITE_CORRUPT
            | sqlite3.SQLITE_NOTADB
            | sqlite3.SQLITE_CANTOPEN
            | sqlite3.SQLITE_READONLY
            | sqlite3.SQLITE_NOMEM
        ):
            return "failed"
    return "bug"


def migrations() -> list[str]:
    """Give the migration scripts, the first one for version 1."""
    folder = resources.files("pushd") / "schema"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    for number, name in enumerate(names, start=1):
        assert name.startswith(f"{number:04}_"), f"the migrations have a hole before {name}"
    return [(folder / name).read_text() for name in names]


def migrate(db: sqlite3.Connection) -> None:
    """Bring the schema to the newest version, each step in one transaction.

    Raises StoreRefused for a schema newer than this program, and for tables of another one.
    """
    scripts = migrations()
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(scripts):
        raise StoreRefused(
            f"the store has schema {version}, this pushd knows {len(scripts)}: install a newer one"
        )
    if version == 0 and db.execute("SELECT 1 FROM sqlite_master").fetchone():
        raise StoreRefused("the database is not one of pushd: move it away, or name another folder")
    for number, script in enumerate(scripts[version:], start=version + 1):
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement in _statements(script):
                db.execute(statement)
            db.execute(f"PRAGMA user_version={number}")
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise


def _statements(script: str) -> list[str]:
    """Split a script into statements, for `executescript` would commit the transaction."""
    statements: list[str] = []
    text = ""
    for line in script.splitlines(keepends=True):
        text += line
        if sqlite3.complete_statement(text):
            statements.append(text)
            text = ""
    assert not text.strip() or text.strip().startswith("--"), "a statement is not ended"
    return statements
