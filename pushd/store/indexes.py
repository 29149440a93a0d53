"""The queues and the large indexes over messages, written so that a commit touches few pages.

What a batch adds to the queues of a large group, to the index by chat, or by the key of a clientId,
lies far apart: nearly a page an entry, and each commit writes each page that it touches. So each
has two parts. A small young one takes what is new. Once it is full it is swept into the large old
one, in the order of its key, a slice with each commit: then many entries share a page.

    queues       young: table queue_recent      old: table queue_old     both: view queue
    by chat      young: table chat_recent       old: table chat_message
    by clientId  young: memory, and after a     old: table client_key
                 start the rows of `message`
                 behind the mark in `meta`

Readers ask both parts (`in_both`, or the view). A sweep moves the oldest entries of a chat or a
device first, so what is young of it comes after all that is old.

All of it belongs to the writer's thread. Nothing that a batch did counts before `committed`.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain

from .rows import insert_rows

# Entries that a sweep moves with a commit, at least.
LEAST_SLICE = 64
# Bits of a key that tell its range. The keys of a range are sorted when their turn comes: all of
# them at once would hold everybody up for 40 ms.
RANGE_BITS = 6
CHAT_PARTS = ("chat_recent", "chat_message")
# Where rows of a queue are, and what belongs to them.
QUEUE_TABLES = ("queue_recent", "queue_old", "gap", "gap_chat")


def in_both(query: str) -> str:
    """Ask a query over `{part}` of both parts of the index by chat."""
    return " UNION ALL ".join(query.format(part=part) for part in CHAT_PARTS)


def newest_of(query: str) -> str:
    """Make an expression of a query over `{part}` that gives the newest message: NULL for none."""
    young, old = (query.format(part=part) for part in CHAT_PARTS)
    return f"coalesce(({young}), ({old}))"


def unlist(db: sqlite3.Connection, entries: Iterable[tuple[int, int]]) -> None:
    """Drop messages, each with its chat before it, from the index by chat."""
    old = sorted(entries)
    for part in CHAT_PARTS:
        db.executemany(f"DELETE FROM {part} WHERE chat = ? AND message = ?", old)


def _slice(messages: int) -> int:
    """How much a sweep moves beside a batch: faster than it can come in."""
    return max(LEAST_SLICE, 2 * messages)


class TwoParts:
    """A table in two parts, keyed by its first two columns; about `limit` rows are young.

    `rows` gathers the values of new rows, one after the other; `flush` writes them.
    """

    def __init__(self, young: str, old: str, columns: Sequence[str], limit: int) -> None:
        self.rows: list[int] = []
        self.limit = limit
        self._young, self._old = young, old
        self._width = len(columns)
        self._columns = ", ".join(columns)
        self._key = ", ".join(columns[:2])
        self._count = -1  # young rows at most; -1 when they are to be counted
        self._swept: tuple[int, int] | None = None  # how far a sweep has come, None without one

    def flush(self, db: sqlite3.Connection) -> None:
        """Write what was gathered."""
        if not self.rows:
            return
        insert_rows(db, f"INSERT INTO {self._young} ({self._columns})", self._width, self.rows)
        if self._count >= 0:
            self._count += len(self.rows) // self._width
        self.rows = []

    def settle(self, db: sqlite3.Connection, added: int) -> None:
        """Move a slice of the young part to the old one, if a sweep is due."""
        if self._swept is None:
            if 0 <= self._count < self.limit:
                return
            # Some have gone since they were counted.
            self._count = db.execute(f"SELECT count(*) FROM {self._young}").fetchone()[0]
            if self._count < self.limit:
                return
            self._swept = (0, 0)
        behind = f"FROM {self._young} WHERE ({self._key}) > (?1, ?2)"
        end = db.execute(
            f"SELECT {self._key} {behind} ORDER BY {self._key} LIMIT 1 OFFSET ?3",
            (*self._swept, _slice(added) - 1),
        ).fetchone()
        self._move(db, behind if end is None else f"{behind} AND ({self._key}) <= (?3, ?4)", end)

    def _move(self, db: sqlite3.Connection, rows: str, end: tuple[int, int] | None) -> None:
        assert self._swept is not None, "only a sweep moves"
        bounds = (*self._swept, *(end or ()))
        db.execute(
            f"INSERT INTO {self._old} ({self._columns}) SELECT {self._columns} {rows}"
            f" ORDER BY {self._key}",
            bounds,
        )
        db.execute(f"DELETE {rows}", bounds)
        self._swept = end
        if end is None:
            self._count = -1

    def rolled_back(self) -> None:
        """Forget what the batch did; the next one begins anew."""
        self.rows.clear()
        self._count, self._swept = -1, None


class ClientKeys:
    """By which key the message of a clientId is found; up to twice `limit` entries are in memory.

    Of two messages with one key the newer counts: the older one's clientId was free again.
    """

    def __init__(self, limit: int) -> None:
        self.added: dict[int, int] = {}  # key: msgId, of this batch
        self._limit = limit
        self._young: dict[int, int] = {}  # what is committed and not in the sweep
        self._sweep: dict[int, int] = {}  # what is being moved; here until all of it is
        self._ranges = _no_keys()  # the young keys
        self._left: list[list[int]] = []  # those of the sweep that are not in their order yet
        self._order: list[int] = []  # the others, in their order
        self._done = 0  # how many of these are in the table
        self._moved = 0  # how many more this batch moves

    def open(self, db: sqlite3.Connection) -> None:
        """Find the young entries in the messages behind the mark."""
        # Behind the later of both marks: what was freed is not young again.
        query = (
            "SELECT client_key, id FROM message WHERE client_key IS NOT NULL AND id > (SELECT"
            " max(CAST(value AS INTEGER)) FROM meta WHERE key IN ('client_keys', 'client_ids'))"
        )
        self._young = dict(db.execute(query))
        self._sort_in(self._young)

    def find(self, keys: Sequence[int]) -> list[int]:
        """Give the young messages that have one of these keys, the newest of a key last."""
        return [part[key] for part in (self._sweep, self._young) for key in part.keys() & keys]

    def settle(self, db: sqlite3.Connection, messages: int) -> None:
        """Move a slice of the young entries to the table, if a sweep is due."""
        if not self._order and not self._left:
            if len(self._young) < self._limit:
                return
            self._sweep, self._young = self._young, {}
            self._left = [keys for keys in self._ranges if keys]
            self._ranges = _no_keys()
        sweep, wanted = self._sweep, _slice(messages)
        while self._left and len(self._order) - self._done < wanted:
            self._order += sorted(self._left.pop())
        part = self._order[self._done : self._done + wanted]
        self._moved = len(part)
        # Some were freed meanwhile.
        part = [key for key in part if key in sweep]
        rows = list(chain.from_iterable(zip(part, map(sweep.__getitem__, part), strict=True)))
        insert_rows(db, "INSERT OR IGNORE INTO client_key (key, message)", 2, rows)
        if self._done + self._moved == len(self._order) and not self._left and sweep:
            mark = "UPDATE meta SET value = ? WHERE key = 'client_keys'"
            db.execute(mark, (str(max(sweep.values())),))

    def committed(self) -> None:
        """Make true what the batch did."""
        if self._moved:
            self._done += self._moved
            self._moved = 0
            if self._done == len(self._order):
                self._order, self._done = [], 0
                if not self._left:
                    self._sweep = {}
        if self.added:
            self._young.update(self.added)
            self._sort_in(self.added)
            self.added = {}

    def _sort_in(self, keys: Iterable[int]) -> None:
        ranges = self._ranges
        for key in keys:
            # Of a negative one the range counts from the end.
            ranges[key >> (64 - RANGE_BITS)].append(key)

    def rolled_back(self) -> None:
        """Forget what the batch did."""
        self.added = {}
        self._moved = 0

    def free(self, db: sqlite3.Connection, entries: Iterable[tuple[int, int]]) -> None:
        """Drop keys with their msgIds; nobody asks for them any more, so it is never undone."""
        old = sorted(entries)
        db.executemany("DELETE FROM client_key WHERE key = ? AND message = ?", old)
        for key, message in old:
            for part in (self._sweep, self._young):
                if part.get(key) == message:
                    del part[key]


def _no_keys() -> list[list[int]]:
    return [[] for _ in range(1 << RANGE_BITS)]
