"""A copy of the database while its writer goes on writing, by the writer's own connection.

The connection is used by two threads then, and SQLite lets one of them work at a time: the writer
waits for a few pages, and the copy waits for a transaction. What is committed meanwhile goes into
the copy too, so the copy is the store as it is when the last page is done. Any other connection
would hold an old view of the store for that long, and the log could not be written back: it grew
by 120 MiB, and the writer stood still for 0.4 s afterwards.

No page can be copied within a transaction, and a busy writer is nearly always in one. So a copy
that finds the database taken asks for a turn: the writer's thread rests between two batches, for
as long as nobody minds.
"""

import asyncio
import errno
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..errors import StoreRefused
from ..steady import Steady
from .engine import Worker, failure_kind

# Pages that are copied at a time, while the writer waits, and with it all who wait for the GIL,
# which it may hold then: well below a ms.
PAGES = 64
# Seconds between them in which the writer works, and after which a taken database is tried again.
REST = 0.002
AGAIN = 0.0005
# How long the writer rests when the copy asks for it, in seconds.
TURN = 0.02


async def copy_live(worker: Worker, target: Path, advance: Callable[[int], None]) -> None:
    """Copy the writer's database, as it is when this ends, to a new file; sync it.

    `advance` is called in a thread with the bytes copied since its last call; what it raises ends
    the copy. Raises OSError and StoreRefused. The worker must not be closed before the end.
    """
    loop = asyncio.get_running_loop()
    copy = LiveCopy(target, advance)
    turns: set[asyncio.Task[None]] = set()

    def give_turn() -> None:
        task = loop.create_task(worker.run(copy.take_turn))
        turns.add(task)
        task.add_done_callback(turns.discard)

    copy.ask = partial(loop.call_soon_threadsafe, give_turn)
    db = await worker.run(lambda db: db)
    await asyncio.to_thread(copy.run, db)
    if turns:
        await asyncio.wait(turns)


class LiveCopy:
    """One copy, made in a thread of its own."""

    def __init__(self, target: Path, advance: Callable[[int], None]) -> None:
        self.ask: Callable[[], object] = lambda: None  # asks for a turn
        self._target = target
        self._advance = advance
        self._done = 0  # pages that were told
        self._page_size = 0  # bytes
        self._asked = False  # a turn was asked for and is not over
        self._alone = False  # the writer's thread rests
        self._ended = threading.Event()
        self._steady: Steady | None = None  # syncs the target

    def take_turn(self, _: sqlite3.Connection) -> None:
        """Rest, in the writer's thread, so that the copy has the database alone."""
        self._alone = True
        self._ended.wait(TURN)
        self._alone = self._asked = False

    def run(self, db: sqlite3.Connection) -> None:
        """Copy and sync."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        file = os.open(self._target, flags, 0o600)
        try:
            self._steady = Steady(file)
            self._copy(db)
            os.fsync(file)
        finally:
            os.close(file)

    def _copy(self, db: sqlite3.Connection) -> None:
        copy = sqlite3.connect(self._target, isolation_level=None)
        try:
            # A half copy is thrown away; the file is synced step by step, and as a whole.
            copy.execute("PRAGMA journal_mode=OFF")
            copy.execute("PRAGMA synchronous=OFF")
            self._page_size = db.execute("PRAGMA page_size").fetchone()[0]
            db.backup(copy, pages=PAGES, progress=self._progress, sleep=AGAIN)
        except sqlite3.Error as problem:
            if failure_kind(problem) == "full":
                text = os.strerror(errno.ENOSPC)
                raise OSError(errno.ENOSPC, text, str(self._target)) from problem
            raise StoreRefused(f"{self._target}: cannot be written: {problem}") from problem
        finally:
            self._ended.set()
            copy.close()

    def _progress(self, status: int, left: int, total: int) -> None:
        copied = max(total - left, self._done)
        count = (copied - self._done) * self._page_size
        self._done = copied
        self._advance(count)
        if self._steady is not None:
            self._steady.wrote(count)
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            if not self._asked:
                self._asked = True
                self.ask()
        elif not self._alone:
            time.sleep(REST)
