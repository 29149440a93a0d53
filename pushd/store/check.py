"""What a whole store looks like: SQLite's own checks, then the rules that the verbs keep.

`Checker` does the checks one by one. Each is a few statements that end by themselves and read one
state of the store, so they may run on a read-only connection beside a server; none holds a state
for long. What is found is told as `Problem`s, with ids and never with contents.
"""

import sqlite3
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ..errors import StoreRefused
from .copy import Copy, FileFact
from .engine import FILE, RESTORING, Lock, check_log, migrations
from .newest import check_newest, newest_in
from .records import checksum

MOST = 20  # problems of one kind that are listed; the rest is counted
# Devices that one step looks at.
DEVICES = 500


class Problem(NamedTuple):
    """One thing that is not as it must be."""

    kind: str
    text: str


Step = Callable[[sqlite3.Connection], list[Problem]]

# Kind: what its rows break, and a query for these rows, which are text. In queues only what is not
# acked counts: acked rows are removed later.
RULES: dict[str, str] = {
    "no epoch": "SELECT 'meta' WHERE NOT EXISTS (SELECT 1 FROM meta WHERE key = 'epoch')",
    "an account without its line": (
        "SELECT 'account ' || a.id FROM account a WHERE a.phone IS NOT NULL AND (SELECT count(*)"
        " FROM device d WHERE d.account = a.id AND d.token IS NULL) <> 1"
    ),
    "a deleted account with devices": (
        "SELECT 'account ' || a.id FROM account a JOIN device d ON d.account = a.id"
        " WHERE a.phone IS NULL"
    ),
    "a device without a position": (
        "SELECT 'device ' || d.id FROM device d WHERE NOT EXISTS"
        " (SELECT 1 FROM position p WHERE p.device = d.id)"
    ),
    "a position that cannot be": (
        "SELECT 'device ' || p.device || ': acked ' || p.acked || ', last ' || p.last"
        " FROM position p WHERE p.acked < 0 OR p.acked > p.last OR NOT EXISTS"
        " (SELECT 1 FROM device d WHERE d.id = p.device)"
    ),
    "a queue without a device": (
        "SELECT 'device ' || q.device FROM (SELECT DISTINCT device FROM queue"
        " UNION SELECT device FROM gap UNION SELECT device FROM gap_chat) q"
        " WHERE NOT EXISTS (SELECT 1 FROM position p WHERE p.device = q.device)"
    ),
    "a gap that is in no queue": (
        "SELECT 'device ' || g.device || ', seq ' || g.seq FROM gap g JOIN position p"
        " ON p.device = g.device WHERE g.seq > p.acked AND NOT EXISTS (SELECT 1 FROM queue q"
        " WHERE q.device = g.device AND q.seq = g.seq AND q.message = g.message)"
    ),
    "a chat of a gap that is not there": (
        "SELECT 'device ' || n.device || ', seq ' || n.seq || ', chat ' || n.chat FROM gap_chat n"
        " WHERE NOT EXISTS (SELECT 1 FROM gap g WHERE g.device = n.device AND g.seq = n.seq)"
        " OR NOT EXISTS (SELECT 1 FROM chat c WHERE c.id = n.chat)"
    ),
    "a message without its chat": (
        "SELECT 'message ' || m.id FROM message m LEFT JOIN chat c ON c.id = m.chat"
        " WHERE c.id IS NULL"
    ),
    "a message that its chat does not list": (
        "SELECT 'message ' || m.id FROM message m WHERE NOT EXISTS (SELECT 1 FROM chat_message i"
        " WHERE i.chat = m.chat AND i.message = m.id) AND NOT EXISTS (SELECT 1 FROM chat_recent i"
        " WHERE i.chat = m.chat AND i.message = m.id)"
    ),
    "a chat that lists what is not its message": (
        "SELECT 'chat ' || i.chat || ', message ' || i.message FROM"
        " (SELECT * FROM chat_message UNION ALL SELECT * FROM chat_recent) i"
        " LEFT JOIN message m ON m.id = i.message AND m.chat = i.chat WHERE m.id IS NULL"
    ),
    "a message that cannot be read": (
        "SELECT 'message ' || id FROM message WHERE NOT json_valid('{' || body || '}')"
    ),
    "a damaged message": (
        "SELECT 'message ' || id FROM message"
        " WHERE checksum <> checksum(id, chat, created, CAST(body AS BLOB))"
    ),
    "a message without its sender": (
        "SELECT 'message ' || m.id FROM message m LEFT JOIN account a ON a.id = m.sender"
        " WHERE a.id IS NULL AND m.sender <> 0"
    ),
    "a msgId that was never given": (
        "SELECT 'msgId ' || given.id FROM (SELECT max(read) AS id FROM member UNION ALL"
        " SELECT max(message) FROM position UNION ALL SELECT max(message) FROM gap) given"
        " WHERE given.id > max(coalesce((SELECT max(id) FROM message), 0), coalesce((SELECT"
        " CAST(value AS INTEGER) FROM meta WHERE key = 'msg_id'), 0))"
    ),
    "a chat with wrong members": (
        "SELECT 'chat ' || c.key FROM chat c WHERE (SELECT count(*) FROM member b"
        " WHERE b.chat = c.id) <> CASE c.kind WHEN 'pair' THEN 2 WHEN 'system' THEN 1 END"
    ),
    "a chat of no kind": (
        "SELECT 'chat ' || c.key FROM chat c LEFT JOIN groups g ON g.chat = c.id"
        " WHERE CASE WHEN c.kind IN ('pair', 'system') THEN g.chat IS NOT NULL"
        " WHEN c.kind IN ('group', 'tag', 'link') THEN g.chat IS NULL ELSE 1 END"
    ),
    "a group without one owner": (
        "SELECT 'group ' || c.key || ': ' || (SELECT count(*) FROM member b WHERE b.chat = c.id"
        " AND b.final IS NULL AND b.role = 'owner') || ' owners' FROM groups g"
        " JOIN chat c ON c.id = g.chat WHERE NOT g.dissolved AND (SELECT count(*) FROM member b"
        " WHERE b.chat = c.id AND b.final IS NULL AND b.role = 'owner') <> 1"
    ),
    "a dissolved group with members": (
        "SELECT 'group ' || c.key FROM groups g JOIN chat c ON c.id = g.chat WHERE g.dissolved"
        " AND EXISTS (SELECT 1 FROM member b WHERE b.chat = c.id AND b.final IS NULL)"
    ),
    "a member that cannot be": (
        "SELECT 'chat ' || c.key || ', account ' || b.account FROM member b JOIN chat c"
        " ON c.id = b.chat WHERE b.final < b.first OR (c.kind IN ('group', 'tag', 'link')"
        " AND b.role NOT IN ('owner', 'admin', 'member'))"
    ),
    "a friendship of one side": (
        "SELECT 'accounts ' || f.account || ' and ' || f.friend FROM friendship f WHERE NOT EXISTS"
        " (SELECT 1 FROM friendship o WHERE o.account = f.friend AND o.friend = f.account)"
    ),
    "a thumbnail of a thumbnail": (
        "SELECT 'file ' || t.path FROM file t JOIN file f ON f.id = t.original"
        " WHERE f.original IS NOT NULL"
    ),
}
# The rows of some queues that are not acked, and where each begins: a gap speaks for several.
WAITING = (
    "WITH waiting AS (SELECT q.device, q.seq, q.message, p.acked, p.last,"
    " max(coalesce(g.seq_from, q.seq), p.acked + 1) AS start, g.seq IS NOT NULL AS is_gap,"
    " lag(q.seq, 1, p.acked) OVER (PARTITION BY q.device ORDER BY q.seq) AS before,"
    " lead(q.seq, 1, 0) OVER (PARTITION BY q.device ORDER BY q.seq) AS next"
    " FROM position p JOIN queue q ON q.device = p.device AND q.seq > p.acked"
    " LEFT JOIN gap g ON g.device = q.device AND g.seq = q.seq"
    " WHERE p.device > ?1 AND p.device <= ?2)"
)
QUEUE_RULES: dict[str, str] = {
    "a hole in a queue": (
        f"{WAITING} SELECT 'device ' || device || ': seq ' || before || ' is followed by ' || start"
        " FROM waiting WHERE start <> before + 1"
    ),
    "a queue that does not end at its last seq": (
        f"{WAITING} SELECT 'device ' || device || ': ends at ' || seq || ', last is ' || last"
        " FROM waiting WHERE next = 0 AND seq <> last UNION ALL"
        " SELECT 'device ' || p.device || ': nothing waits behind ' || p.acked || ', last is '"
        " || p.last FROM position p WHERE p.device > ?1 AND p.device <= ?2 AND p.last > p.acked"
        " AND NOT EXISTS (SELECT 1 FROM queue q WHERE q.device = p.device AND q.seq > p.acked)"
    ),
    "a queue row without its message": (
        f"{WAITING} SELECT 'device ' || w.device || ', seq ' || w.seq || ', msgId ' || w.message"
        " FROM waiting w LEFT JOIN message m ON m.id = w.message"
        " WHERE m.id IS NULL AND NOT w.is_gap"
    ),
    "a message twice in a queue": (
        f"{WAITING} SELECT 'device ' || device || ', msgId ' || message FROM waiting"
        " GROUP BY device, message HAVING count(*) > 1"
    ),
    "a queue row of somebody else's chat": (
        f"{WAITING} SELECT 'device ' || w.device || ', seq ' || w.seq || ', msgId ' || w.message"
        " FROM waiting w JOIN message m ON m.id = w.message JOIN device d ON d.id = w.device"
        " WHERE NOT w.is_gap AND NOT EXISTS"
        " (SELECT 1 FROM member b WHERE b.chat = m.chat AND b.account = d.account)"
    ),
}


@contextmanager
def open_stopped(folder: Path) -> Iterator["Checker"]:
    """Open the store of a server that does not run, and keep one from starting meanwhile.

    Raises StoreRefused, in one line, when there is none, or a server has it.
    """
    if not (folder / FILE).is_file():
        raise StoreRefused(f"{folder}: there is no store: name its folder by --data")
    lock = Lock(folder)
    try:
        if (folder / RESTORING).exists():
            raise StoreRefused(f"{folder}: a restore did not end here: restore again")
        check_log(folder)
        checker = Checker(folder, live=False)
        try:
            checker.check_newest(folder)
            yield checker
        finally:
            checker.close()
    finally:
        lock.release()


class Checker:
    """The checks of one store, beside a server or of one that stopped.

    One thread at a time uses it. Raises StoreRefused, in one line, for another schema.
    """

    def __init__(self, folder: Path, *, live: bool) -> None:
        self._copy = Copy(folder / FILE)
        self._db = self._copy.db
        self._db.execute("PRAGMA busy_timeout=5000")
        self._db.create_function("checksum", 4, _checksum, deterministic=True)
        known = len(migrations())
        if self._copy.schema != known:
            self._copy.close()
            raise StoreRefused(
                f"the store has schema {self._copy.schema}, this pushd checks {known}:"
                " start the pushd that it belongs to"
            )
        self._steps = self._all_steps(live)

    def close(self) -> None:
        """End the checks."""
        self._steps.close()
        self._copy.close()

    def check_newest(self, folder: Path) -> None:
        """Refuse a store that ends before what was confirmed."""
        try:
            known = newest_in(self._db)
        except sqlite3.DatabaseError:
            return  # the checks tell what is damaged
        check_newest(folder, known)

    def stop_when(self, stopping: Callable[[], bool]) -> None:
        """Break off long statements once `stopping` holds."""
        self._copy.stop_when(stopping)

    def total(self) -> int:
        """Tell how many steps and files there are, about."""
        tables = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND rootpage > 0"
        queries = (tables, "SELECT count(*) FROM position", "SELECT count(*) FROM file")
        try:
            count, devices, files = (self._db.execute(query).fetchone()[0] for query in queries)
        except sqlite3.DatabaseError:
            return len(RULES)
        return int(2 * count + len(RULES) - (-devices // DEVICES) * len(QUEUE_RULES) + files)

    def step(self) -> list[Problem] | None:
        """Do the next step; None when all are done."""
        try:
            step = next(self._steps, None)
            return None if step is None else step(self._db)
        except sqlite3.DatabaseError as problem:
            return [Problem("damaged", str(problem))]

    def files(self, after: str, most: int) -> list[FileFact]:
        """List files that the store refers to, by rising path."""
        query = "SELECT path, size, md5 FROM file WHERE path > ? ORDER BY path LIMIT ?"
        try:
            return [FileFact(*row) for row in self._db.execute(query, (after, most))]
        except sqlite3.DatabaseError as problem:
            raise StoreRefused(f"file: {problem}") from None

    def strays(self, paths: Sequence[str]) -> list[str]:
        """Tell which of these paths the store does not refer to."""
        query = "SELECT 1 FROM file WHERE path = ?"
        try:
            return [path for path in paths if not self._db.execute(query, (path,)).fetchone()]
        except sqlite3.DatabaseError as problem:
            raise StoreRefused(f"file: {problem}") from None

    def _all_steps(self, live: bool) -> Generator[Step, None, None]:
        db = self._db
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0 ORDER BY name"
        tables = [row[0] for row in db.execute(query)]
        if not live:
            # All at once sees more: pages that belong to no table.
            yield partial(_integrity, table="")
        for table in tables:
            if live:
                yield partial(_integrity, table=table)
            yield partial(_foreign_keys, table=table)
        for kind, rule in RULES.items():
            yield partial(_rule, kind=kind, query=rule)
        last = 0
        page = "SELECT max(device) FROM (SELECT device FROM position WHERE device > ?"
        page += " ORDER BY device LIMIT ?)"
        while (upto := db.execute(page, (last, DEVICES)).fetchone()[0]) is not None:
            for kind, rule in QUEUE_RULES.items():
                yield partial(_rule, kind=kind, query=rule, values=(last, upto))
            last = upto


def _checksum(number: object, chat: object, created: object, body: object) -> int:
    if isinstance(number, int) and isinstance(chat, int) and isinstance(created, int):
        return checksum(number, chat, created, body if isinstance(body, bytes) else b"")
    return -1


def _integrity(db: sqlite3.Connection, table: str) -> list[Problem]:
    which = f'("{table}")' if table else ""
    rows = db.execute(f"PRAGMA integrity_check{which}").fetchmany(MOST)
    return [
        Problem("damaged", f"{table or 'all'}: {' '.join(str(row[0]).split())}")
        for row in rows
        if row[0] != "ok"
    ]


def _foreign_keys(db: sqlite3.Connection, table: str) -> list[Problem]:
    rows = db.execute(f'PRAGMA foreign_key_check("{table}")').fetchmany(MOST)
    return [
        Problem("a lost reference", f"{row[0]} {row[1] or ''} refers to a lost {row[2]}")
        for row in rows
    ]


def _rule(
    db: sqlite3.Connection, kind: str, query: str, values: tuple[int, ...] = ()
) -> list[Problem]:
    return [Problem(kind, str(row[0])) for row in db.execute(query, values).fetchmany(MOST)]
