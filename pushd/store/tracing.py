"""Where a message is, and what waits for whom: what operators ask when somebody misses something.

All of it is read from the rows that delivery itself lives by, and from the marks; nothing here
ever reads what people wrote.
"""

import sqlite3
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ..clock import DAY_MS
from ..config import Trace
from ..draft import client_key
from ..errors import Refusal
from ..status import Status
from .journal import Journal
from .marks import Commit, commit_of
from .messages import shown_key
from .noun import Noun, reads, writes
from .records import sound

# Of a queue, which has two parts: where a message is in it, how many wait, since when the first.
_SEQ = "(SELECT seq FROM {part} WHERE device = d.id AND message = ?2)"
_DEPTH = "(SELECT count(*) FROM {part} WHERE device = d.id AND seq > p.acked)"
_OLDEST = (
    "(SELECT coalesce((SELECT created FROM message WHERE id = q.message),"
    " (SELECT created FROM gap WHERE device = q.device AND seq = q.seq), 0) FROM {part} q"
    " WHERE q.device = d.id AND q.seq > p.acked ORDER BY q.seq LIMIT 1)"
)


def _parts(expression: str) -> tuple[str, str]:
    return expression.format(part="queue_old"), expression.format(part="queue_recent")


# A device of an account and where its queue stands.
DEVICES = (
    "SELECT d.id, d.token IS NULL, d.since, p.acked, p.message, p.at,"
    f" coalesce({', '.join(_parts(_SEQ))})"
    " FROM device d JOIN position p ON p.device = d.id WHERE d.account = ?1 ORDER BY d.id"
)
MEMBERS = (
    "SELECT account, read, read_at FROM member WHERE chat = ?1 AND account > ?2 AND first < ?3"
    " AND (final IS NULL OR final >= ?3) ORDER BY account LIMIT ?4"
)
# The first mark behind which a message lies, of each device or reader.
MARKS = (
    "SELECT {owner}, before, at, min(id) FROM {table} WHERE id >= ?1 AND message >= ?2"
    " AND {owner} IN (SELECT value FROM json_each(?3)) AND {more} GROUP BY {owner}"
)
QUEUES = (
    "SELECT d.account, d.id, d.token IS NULL, d.name, d.last_seen,"
    f" {' + '.join(_parts(_DEPTH))}, coalesce({', '.join(_parts(_OLDEST))})"
    " FROM device d JOIN position p ON p.device = d.id"
)

# A row of QUEUES: account, device, whether it is the line, name, last seen, depth, oldest or None.
QueueRow = tuple[int, int, int, str, int, int, int | None]


class _Kind(msgspec.Struct):
    """What of a message's body is told."""

    type: str


@dataclass(slots=True)
class Place:
    """A queue that a message went to, or an account of which no queue is left."""

    account: int
    device: int = 0  # 0 for the line of an account, or for none
    state: str = "gone"
    seq: int = 0  # in the queue, 0 when it is not there any more
    acked: int = 0  # when (ms), 0 when that is not known
    acked_exact: bool = False  # then, and not at the latest then
    read: int = 0
    read_exact: bool = False


@dataclass(slots=True)
class Traced:
    """What is known of a message; times are in ms, 0 when it did not happen or is not known."""

    number: int
    chat: str
    kind: str
    type: str
    sender: int
    accepted: int
    committed: int
    recalled: int | None  # None when it was not, 0 when it is not known when
    expires: int
    expired: bool
    places: list[Place] = field(default_factory=list)
    next: int = 0  # the account behind which the next page begins, 0 at the end


class Tracing(Noun):
    """The verbs of looking for messages."""

    settings = Trace()  # the store sets its own
    commits: deque[Commit]  # the journal's; the store sets it

    @reads()
    def find(self, db: sqlite3.Connection, sender: int, client_id: str) -> int:
        """Find the newest message of a sender's with a clientId; raises Refusal 4005."""
        mark = "SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'client_keys'"
        row = db.execute(
            f"SELECT id FROM message WHERE id > ({mark}) AND client_key = ?1 AND sender = ?2"
            " AND client_id = ?3 UNION SELECT m.id FROM client_key c JOIN message m"
            " ON m.id = c.message WHERE c.key = ?1 AND m.sender = ?2 AND m.client_id = ?3"
            " ORDER BY 1 DESC LIMIT 1",
            (client_key(sender, client_id), sender, client_id),
        ).fetchone()
        if row is None:
            raise Refusal(Status.NOT_FOUND, "no message has this clientId", field="clientId")
        return int(row[0])

    @reads(long=True)
    def trace(self, db: sqlite3.Connection, number: int, after: int, size: int) -> Traced:
        """Tell where a message is, in the queues of `size` accounts behind one.

        Raises: Refusal 4005 for a message that is not in the store.
        """
        row = db.execute(
            "SELECT m.chat, c.key, c.kind, m.sender, m.created, m.original IS NOT NULL, m.recalled,"
            " m.expires, CAST(m.body AS BLOB), m.checksum"
            " FROM message m JOIN chat c ON c.id = m.chat WHERE m.id = ?",
            (number,),
        ).fetchone()
        if row is None:
            raise Refusal(Status.NOT_FOUND, "no such message", field="msgId")
        chat, key, kind, sender, created, gone, recalled, expires, body, sum_ = row
        whole = sound(number, chat, created, body, sum_)
        found = Traced(
            number,
            shown_key(key),
            kind,
            msgspec.json.decode(b"{%b}" % body, type=_Kind).type if whole else "damaged",
            sender,
            created,
            commit_of(self.commits, number),
            (recalled or 0) if gone else None,
            expires or 0,
            # Looked at once, so that its places say the same.
            expires is not None and expires <= self.clock.wall(),
        )
        if expires is not None and expires < created:
            # It is kept for its clientId alone, and went nowhere.
            return found
        members = db.execute(MEMBERS, (chat, after, number, size + 1)).fetchall()
        if len(members) > size:
            found.next = members[size - 1][0]
        for account, read, read_at in members[:size]:
            places = self._places(db, account, chat, number, account == sender)
            for place in places:
                if place.state in ("queued", "waiting") and found.expired:
                    place.state = "expired"
                if read >= number and account != sender:
                    place.read = read_at
            found.places += places
        self._mark(db, found, chat)
        return found

    def _places(
        self, db: sqlite3.Connection, account: int, chat: int, number: int, own: bool
    ) -> list[Place]:
        """Look into all queues of an account; of its own sender only where there is a trace."""
        places: list[Place] = []
        for device, line, since, acked, newest, acked_at, seq in db.execute(
            DEVICES, (account, number)
        ).fetchall():
            if seq is not None:
                state = "acked" if seq <= acked else "waiting" if line else "queued"
            elif not line and self._in_gap(db, device, chat, number):
                state = "gap"
            elif line or since >= number or own:
                continue
            else:
                # What has no row is acked, or stands behind a gap of too many chats to name them.
                state = "acked" if newest >= number else "gap"
            place = Place(account, 0 if line else device, state, seq or 0)
            place.acked = acked_at if state == "acked" else 0
            places.append(place)
        return places or ([] if own else [Place(account)])

    def _in_gap(self, db: sqlite3.Connection, device: int, chat: int, number: int) -> bool:
        query = "SELECT 1 FROM gap_chat WHERE device = ? AND chat = ? AND after < ?"
        return db.execute(query, (device, chat, number)).fetchone() is not None

    def _mark(self, db: sqlite3.Connection, found: Traced, chat: int) -> None:
        """Replace the latest times of acks and reading by those that the marks know better."""
        devices = [one.device for one in found.places if one.state == "acked" and one.device]
        acks = _marks(db, "ack_mark", "device", "?4 = ?4", devices, found, chat)
        readers = sorted({one.account for one in found.places if one.read})
        reads = _marks(db, "read_mark", "account", "chat = ?4", readers, found, chat)
        for place in found.places:
            if place.device in acks:
                before, place.acked = acks[place.device]
                place.acked_exact = before < found.number
            if place.account in reads and place.read:
                before, place.read = reads[place.account]
                place.read_exact = before < found.number

    @reads()
    def queues_of(self, db: sqlite3.Connection, account: int) -> list[QueueRow]:
        """List the queues of an account, its line last; an empty line is left out."""
        rows = db.execute(f"{QUEUES} WHERE d.account = ? ORDER BY 3, 2", (account,)).fetchall()
        return [row for row in rows if row[5] or not row[2]]

    @reads(long=True)
    def deepest(self, db: sqlite3.Connection, size: int) -> list[QueueRow]:
        """List the queues in which most waits, the deepest first."""
        # Their ends say how deep they are, but for what a gap stands for; so a few more are read.
        far = "SELECT device FROM position WHERE last > acked ORDER BY last - acked DESC LIMIT ?"
        rows = db.execute(f"{QUEUES} WHERE d.id IN ({far})", (2 * size,)).fetchall()
        return sorted((row for row in rows if row[5]), key=lambda row: (-row[5], row[1]))[:size]

    @writes(grows=False)
    def trim(self, journal: Journal, most: int) -> int:
        """Remove marks older than `settings.days`, at most so many of each kind; gives how many."""
        oldest = journal.now - self.settings.days * DAY_MS
        gone = 0
        for table in ("ack_mark", "read_mark"):
            # Only the front is looked at: times rise with the ids.
            front = f"id <= (SELECT min(id) FROM {table}) + ?"
            rows = f"DELETE FROM {table} WHERE {front} AND at < ?"
            gone += journal.db.execute(rows, (most, oldest)).rowcount
        return gone


def _marks(
    db: sqlite3.Connection,
    table: str,
    owner: str,
    more: str,
    owners: Sequence[int],
    found: Traced,
    chat: int,
) -> dict[int, tuple[int, int]]:
    """Give for each owner where the mark began behind which a message lies, and its time."""
    if not owners:
        return {}
    query = MARKS.format(owner=owner, table=table, more=more)
    start = _first_since(db, table, found.accepted)
    values: tuple[Any, ...] = (start, found.number, msgspec.json.encode(list(owners)).decode())
    rows = db.execute(query, (*values, chat)).fetchall()
    return {row[0]: (row[1], row[2]) for row in rows}


def _first_since(db: sqlite3.Connection, table: str, at: int) -> int:
    """Find the id of the first mark that is not older; ids rise with time."""
    low, high = db.execute(f"SELECT min(id), max(id) FROM {table}").fetchone()
    if low is None:
        return 0
    while low < high:
        middle = (low + high) // 2
        query = f"SELECT at FROM {table} WHERE id >= ? ORDER BY id LIMIT 1"
        if db.execute(query, (middle,)).fetchone()[0] < at:
            low = middle + 1
        else:
            high = middle
    return int(low)
