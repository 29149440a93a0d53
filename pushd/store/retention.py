"""What is removed when it is too old: waiting rows, messages, what stands for files.

Each verb goes in small steps with rests between them, and looks for what is old on a connection
that only reads, so that a commit waits for one step at most. Rows of queues go first and become
gaps, messages after them: a queue never names a message that is gone. A file loses the reference
of a message with the message, and the sweep of files removes it when nothing else refers to it.

Ids rise with time, so the newest message of a day is found by halving. Where the clock was wrong
for a while, a message goes later than it could, and never earlier than its own date says.
"""

import sqlite3
from collections.abc import Sequence

from .indexes import QUEUE_TABLES, unlist
from .journal import GAP_CHATS, Journal
from .noun import Noun, reads, writes

# Devices, messages, rows and references that one step looks at.
DEVICES = 500
MESSAGES = 200
ROWS = 2000  # of a queue
REFERENCES = 5000
# The rest after a step, in seconds.
REST = 0.01

Reference = tuple[int, int, int]  # file, chat, message

# For some devices: the message that waits first, gaps aside.
_FRONT = (
    "(SELECT q.message FROM {part} q WHERE q.device = p.device AND q.seq > p.acked AND NOT EXISTS"
    " (SELECT 1 FROM gap g WHERE g.device = q.device AND g.seq = q.seq) ORDER BY q.seq LIMIT 1)"
)
FRONTS = (
    f"SELECT p.device, coalesce({_FRONT.format(part='queue_old')},"
    f" {_FRONT.format(part='queue_recent')})"
    " FROM position p WHERE p.device > ? ORDER BY p.device LIMIT ?"
)


class Retention(Noun):
    """The verbs of forgetting."""

    async def expire_queues(self, before: int, most: int = 1 << 40) -> int:
        """Replace what waits since before then (ms) by gaps, in up to `most` queues.

        Gives in how many. Only the front of a queue expires, so what stays keeps its order.
        """
        newest = await self._newest(before)
        done, after = 0, -1
        while newest and after and done < most:
            fronts, after = await self._fronts(max(after, 0))
            devices = [device for device, front in fronts if front <= newest]
            for device in devices[: most - done]:
                begun = False
                while await self._expire(device, newest, before):
                    begun = True
                    await self.clock.sleep(REST)
                done += begun
        return done

    async def forget(self, before: int) -> int:
        """Remove all messages from before then (ms); gives how many. Expire the queues first."""
        newest = await self._not_waiting(await self._newest(before))
        total = 0
        while newest and (count := await self._forget(newest, before)):
            total += count
            await self.clock.sleep(REST)
        if total:
            await self._drop_references()
        return total

    async def forget_expired(self, before: int) -> int:
        """Remove messages whose own end came before then (ms); gives how many.

        Nothing shows them since; queues must not hold them any more.
        """
        total = 0
        while count := await self._forget_expired(before):
            total += count
            await self.clock.sleep(REST)
        return total

    # --- queues ---------------------------------------------------------------------------

    @reads(long=True)
    def _newest(self, db: sqlite3.Connection, before: int) -> int:
        """Find the newest message from before then; 0 when there is none."""
        query = "SELECT id, created FROM message WHERE id <= ? ORDER BY id DESC LIMIT 1"
        low = 0
        high: int = db.execute("SELECT coalesce(max(id), 0) FROM message").fetchone()[0]
        while low < high:
            middle = (low + high + 1) // 2
            number, created = db.execute(query, (middle,)).fetchone() or (0, -1)
            if created < before:
                low = middle
            else:
                high = number - 1
        return low if db.execute(query, (low,)).fetchone() else 0

    @reads(long=True)
    def _fronts(self, db: sqlite3.Connection, after: int) -> tuple[list[tuple[int, int]], int]:
        """List devices behind one with the message that waits first.

        Gives the device to go on with too, 0 at the end.
        """
        rows = db.execute(FRONTS, (after, DEVICES)).fetchall()
        found = [(device, front) for device, front in rows if front is not None]
        return found, rows[-1][0] if len(rows) == DEVICES else 0

    async def _not_waiting(self, newest: int) -> int:
        """Give the newest message up to one that no queue holds, nor any before it.

        Once queues have expired, what is left in front has a younger date than its id tells.
        """
        after = 0
        while newest:
            fronts, after = await self._fronts(after)
            newest = min([newest, *(front - 1 for _, front in fronts)])
            if not after:
                break
        return newest

    @writes()
    def _expire(self, journal: Journal, device: int, newest: int, before: int) -> bool:
        """Replace some of the front of a queue by a gap: what is old by id and date.

        Gives False when none is. The next step takes that gap into its own.
        """
        queue = journal.queue(device)
        if queue is None:
            return False
        rows = journal.db.execute(
            "SELECT q.seq, m.created FROM queue q LEFT JOIN message m ON m.id = q.message"
            " WHERE q.device = ? AND q.seq > ? AND q.message <= ? AND NOT EXISTS"
            " (SELECT 1 FROM gap g WHERE g.device = q.device AND g.seq = q.seq)"
            " ORDER BY q.seq LIMIT ?",
            (device, queue.acked, newest, ROWS),
        ).fetchall()
        seq = 0
        for number, created in rows:
            if created is not None and created >= before:
                break
            seq = number
        if not seq:
            return False
        _fold_front(journal, device, seq)
        return True

    # --- messages -------------------------------------------------------------------------

    @writes(grows=False)
    def _forget(self, journal: Journal, newest: int, before: int) -> int:
        """Remove some messages up to one that are from before then."""
        query = "SELECT id FROM message WHERE id <= ? AND created < ? ORDER BY id LIMIT ?"
        return _remove(journal, query, (newest, before, MESSAGES))

    @writes(grows=False)
    def _forget_expired(self, journal: Journal, before: int) -> int:
        query = "SELECT id FROM message WHERE expires < ? ORDER BY expires LIMIT ?"
        return _remove(journal, query, (before, MESSAGES))

    # --- files ----------------------------------------------------------------------------

    async def _drop_references(self) -> None:
        """Remove what tells of files in messages that are gone; it gives nobody a right."""
        after: Reference | None = (0, 0, 0)
        while after is not None:
            stale, after = await self._stale(after)
            for start in range(0, len(stale), MESSAGES):
                await self._drop(stale[start : start + MESSAGES])
                await self.clock.sleep(REST)

    @reads(long=True)
    def _stale(
        self, db: sqlite3.Connection, after: Reference
    ) -> tuple[list[Reference], Reference | None]:
        rows = db.execute(
            "SELECT r.file, r.chat, r.message, m.id IS NULL FROM file_ref r LEFT JOIN message m"
            " ON m.id = r.message WHERE (r.file, r.chat, r.message) > (?, ?, ?)"
            " ORDER BY r.file, r.chat, r.message LIMIT ?",
            (*after, REFERENCES),
        ).fetchall()
        stale = [(row[0], row[1], row[2]) for row in rows if row[3]]
        return stale, tuple(rows[-1][:3]) if len(rows) == REFERENCES else None

    @writes(grows=False)
    def _drop(self, journal: Journal, references: Sequence[Reference]) -> None:
        remove = "DELETE FROM file_ref WHERE file = ? AND chat = ? AND message = ?"
        for reference in references:
            journal.db.execute(remove, reference)


def _remove(journal: Journal, query: str, values: tuple[int, ...]) -> int:
    # The newest message may be among them; its id is never given again.
    journal.keep_next_id()
    db = journal.db
    select = f"SELECT id, chat, client_key FROM message WHERE id IN ({query})"
    rows = db.execute(select, values).fetchall()
    unlist(db, [(chat, number) for number, chat, _ in rows])
    journal.client_keys.free(db, [(key, number) for number, _, key in rows if key is not None])
    db.executemany("DELETE FROM message WHERE id = ?", [row[:1] for row in rows])
    return len(rows)


def _fold_front(journal: Journal, device: int, seq: int) -> None:
    """Replace the front of a queue, up to a seq, by one gap over its seqs."""
    db = journal.db
    queue = journal.queue(device)
    if queue is None:
        return
    number = journal.message_id()
    chats = db.execute(
        "SELECT chat, min(after) FROM (SELECT m.chat AS chat, q.message - 1 AS after FROM queue q"
        " JOIN message m ON m.id = q.message WHERE q.device = ?1 AND q.seq > ?2 AND q.seq <= ?3"
        " UNION ALL SELECT chat, after FROM gap_chat WHERE device = ?1 AND seq > ?2 AND seq <= ?3)"
        " GROUP BY chat ORDER BY 2 LIMIT ?4",
        (device, queue.acked, seq, GAP_CHATS),
    ).fetchall()
    for table in QUEUE_TABLES:
        db.execute(f"DELETE FROM {table} WHERE device = ? AND seq <= ?", (device, seq))
    # It comes before all that is left, so its place is in the old part.
    db.execute("INSERT INTO queue_old VALUES (?, ?, ?)", (device, seq, number))
    values = (device, seq, queue.acked + 1, number, journal.now, 0)
    db.execute("INSERT INTO gap VALUES (?, ?, ?, ?, ?, ?)", values)
    for chat, after in chats:
        db.execute("INSERT INTO gap_chat VALUES (?, ?, ?, ?)", (device, seq, chat, after))
    journal.keep_next_id()
    account = queue.account
    journal.forget_account(account)
