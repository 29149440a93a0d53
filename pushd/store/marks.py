"""When batches were committed, devices acked and people read: what `trace` tells times from.

The store itself knows only how far each device and reader has come. So the writer's thread keeps,
beside what it does anyway:

    commits  in memory, one a batch: its msgIds and when it was durable
    marks    rows, appended: by it somebody went from one msgId to another at that time

A device that acks all the time gets one mark in `seconds`; the acks between two marks are known
to the later one, so the time it gives is the latest that is possible. The time of its very last
ack stands in its position. Nothing here is done for a single message.
"""

import sqlite3
from collections import deque

from ..clock import Clock
from ..config import Trace
from .records import Queue
from .rows import insert_rows

# Readers whose last mark is remembered; beyond that all of them are marked sooner.
MOST_READERS = 100_000
# Rows that are added before the oldest are removed.
TRIM_PERIOD = 1024
# A batch that was committed: its first msgId, its last one, when (ms).
Commit = tuple[int, int, int]


class Marks:
    """Marks of acks and of reading, and the ring of commits."""

    def __init__(self, settings: Trace) -> None:
        self.commits: deque[Commit] = deque(maxlen=settings.commits)
        self._pause = settings.seconds * 1000
        self._most = settings.marks
        self._read: dict[tuple[int, int], int] = {}  # when a reader of a chat was marked, in ms
        self._ack_rows: list[int] = []
        self._read_rows: list[int] = []
        self._added = TRIM_PERIOD  # rows since the oldest were removed

    def ack(self, queue: Queue, message: int, now: int) -> None:
        """Note that a device acks up to a msgId; the caller waits until `mark_due` for the next."""
        queue.mark_due = now + self._pause
        self._ack_rows += (queue.device, queue.message, message, now)

    def read(self, chat: int, account: int, before: int, message: int, now: int) -> None:
        """Note that somebody has read a chat up to a msgId, unless it was noted a moment ago."""
        if now - self._read.get((chat, account), 0) >= self._pause:
            self._read[chat, account] = now
            self._read_rows += (chat, account, before, message, now)

    def flush(self, db: sqlite3.Connection) -> None:
        """Write the marks of a batch with it."""
        if not (self._ack_rows or self._read_rows):
            return
        ack_head = "INSERT INTO ack_mark (device, before, message, at)"
        read_head = "INSERT INTO read_mark (chat, account, before, message, at)"
        insert_rows(db, ack_head, 4, self._ack_rows)
        insert_rows(db, read_head, 5, self._read_rows)
        self._added += len(self._ack_rows) // 4 + len(self._read_rows) // 5
        self._ack_rows, self._read_rows = [], []
        if self._added >= TRIM_PERIOD:
            self._added = 0
            for table in ("ack_mark", "read_mark"):
                old = f"DELETE FROM {table} WHERE id <= (SELECT max(id) FROM {table}) - ?"
                db.execute(old, (self._most,))

    def committed(self, first: int, following: int, clock: Clock) -> None:
        """Note when a batch was durable, if it gave msgIds out."""
        if following > first:
            self.commits.append((first, following - 1, clock.wall()))
        if len(self._read) > MOST_READERS:
            self._read.clear()

    def rolled_back(self) -> None:
        """Forget the marks of a batch that was not committed; the next ones are written anew."""
        self._ack_rows.clear()
        self._read_rows.clear()
        self._read.clear()


def commit_of(commits: deque[Commit], message: int) -> int:
    """Give when a message was committed (ms); 0 when that is not kept."""
    # A copy, for the writer's thread goes on.
    for first, last, at in commits.copy():
        if first <= message <= last:
            return at
    return 0
