"""What a monitor asks of the store: how much waits, since when, and whether it can be written."""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from .journal import Journal
from .noun import Noun, reads, writes

# One index lookup for each queue in which something waits: message ids rise with time.
_OLDEST = """
SELECT min(coalesce(
    (SELECT q.message FROM queue_old q WHERE q.device = p.device AND q.seq > p.acked
     ORDER BY q.seq LIMIT 1),
    (SELECT q.message FROM queue_recent q WHERE q.device = p.device AND q.seq > p.acked
     ORDER BY q.seq LIMIT 1)))
FROM position p WHERE p.last > p.acked
"""
_OLDEST_OF = f"{_OLDEST} AND p.device IN (SELECT value FROM json_each(?))"
_CREATED = "SELECT created FROM message WHERE id = ?1 UNION ALL SELECT created FROM gap"
_CREATED += " WHERE message = ?1 LIMIT 1"
# The line in which messages wait while an account has no device is device 0 here.
_LARGEST = """
SELECT iif(d.token IS NULL, 0, d.id), d.account, p.last - p.acked
FROM position p JOIN device d ON d.id = p.device
WHERE p.last > p.acked ORDER BY p.last - p.acked DESC LIMIT 20
"""


class Census(NamedTuple):
    """What waits, and what is kept; times are milliseconds since 1970, 0 when nothing waits."""

    waiting: int = 0  # messages in all queues, with those that gaps stand for
    oldest: int = 0  # when the oldest of them was accepted
    oldest_online: int = 0  # the same among devices that were named
    media: int = 0  # bytes of stored files
    largest: Sequence[tuple[int, int, int]] = ()  # the longest queues: device, account, messages


class Health(Noun):
    """The verbs of monitoring; none of them is for a request."""

    @reads(long=True)
    def census(self, db: sqlite3.Connection, behind: Sequence[int]) -> Census:
        """Count what waits; costs one look at each device, and none at a message.

        `behind` are the connected devices that have not acked all.
        """
        waiting = "SELECT coalesce(sum(last - acked), 0) FROM position WHERE last > acked"
        media = "SELECT coalesce(sum(size), 0) FROM file"
        devices = msgspec.json.encode(behind).decode()
        return Census(
            db.execute(waiting).fetchone()[0],
            _created(db, db.execute(_OLDEST).fetchone()[0]),
            _created(db, db.execute(_OLDEST_OF, (devices,)).fetchone()[0]),
            db.execute(media).fetchone()[0],
            db.execute(_LARGEST).fetchall(),
        )

    @writes()
    def probe(self, journal: Journal) -> None:
        """Write one row, as durably as a message; raises what a message would meet."""
        journal.db.execute(
            "INSERT INTO meta VALUES ('probe', ?1) ON CONFLICT (key) DO UPDATE SET value = ?1",
            (str(journal.now),),
        )


def _created(db: sqlite3.Connection, message: int | None) -> int:
    if message is None:
        return 0
    found = db.execute(_CREATED, (message,)).fetchone()
    return int(found[0]) if found else 0
