"""What operators did, who logged in, and what people report; all of it bounded.

Each kind of entry has `settings.rows` rows at most, so that a flood of wrong passwords pushes out
neither an operator's action nor a login that succeeded.
"""

import sqlite3
from collections.abc import Sequence

from ..audit import Entry, Kind
from ..clock import DAY_MS
from ..config import Audit as Settings
from ..errors import Refusal
from ..status import Status
from .journal import Journal
from .noun import Noun, reads, writes


class Audit(Noun):
    """The verbs of what is written down."""

    settings = Settings()  # the store sets its own

    @writes(grows=False)
    def add(self, journal: Journal, entry: Entry) -> None:
        """Write an action down, on a full disk too; the oldest of a full kind makes room."""
        self._insert(journal, entry)

    @writes()
    def add_logins(self, journal: Journal, entries: Sequence[Entry]) -> None:
        """Write logins down; a flood of them must not use up what is kept for a full disk."""
        for entry in entries:
            self._insert(journal, entry)

    def _insert(self, journal: Journal, entry: Entry) -> None:
        db, kind = journal.db, int(entry.kind)
        newest = "SELECT coalesce(max(number), 0) + 1 FROM audit WHERE kind = ?"
        number: int = db.execute(newest, (kind,)).fetchone()[0]
        db.execute(
            "INSERT INTO audit (kind, number, time, actor, action, account, detail, outcome, count)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(kind, number, journal.now, entry.actor, entry.action, entry.account),
                *(entry.detail, entry.outcome, entry.count),
            ),
        )
        full = "DELETE FROM audit WHERE kind = ? AND number <= ?"
        db.execute(full, (kind, number - self.settings.rows))

    @writes(grows=False)
    def trim(self, journal: Journal, most: int) -> int:
        """Remove what is older than `settings.days`, at most so many rows; gives how many."""
        oldest = journal.now - self.settings.days * DAY_MS
        gone = 0
        for kind in Kind:
            rows = (
                "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE kind = ?1 AND number <="
                " (SELECT min(number) FROM audit WHERE kind = ?1) + ?2 AND time < ?3)"
            )
            gone += journal.db.execute(rows, (kind, most, oldest)).rowcount
        reports = "DELETE FROM report WHERE done <> 0 AND done < ?"
        journal.db.execute(reports, (oldest,))
        return gone

    @reads()
    def page(
        self, db: sqlite3.Connection, account: int, since: int, before: int, skip: int, size: int
    ) -> list[tuple[int, int, str, str, int, str, str, int]]:
        """List entries since then (ms), newest first, of one account if it is not 0.

        Each is its id, time, actor, action, account, detail, outcome and count.
        """
        about = "account = ?1" if account else "?1 = 0"
        return db.execute(
            "SELECT id, time, actor, action, account, detail, outcome, count FROM audit"
            f" WHERE {about} AND time >= ?2 AND id < ?3 ORDER BY id DESC LIMIT ?4 OFFSET ?5",
            (account, since, before, size, skip),
        ).fetchall()

    @reads()
    def logins(self, db: sqlite3.Connection, account: int) -> list[tuple[int, str, str, str, int]]:
        """List an account's logins, newest first: time, address, action, outcome and count."""
        query = "SELECT time, actor, action, outcome, count FROM audit WHERE account = ? AND kind"
        return db.execute(f"{query} <> ? ORDER BY id DESC", (account, Kind.ACTION)).fetchall()

    # --- reports --------------------------------------------------------------------------

    @reads()
    def reports(
        self, db: sqlite3.Connection, before: int, skip: int, size: int, *, done: bool
    ) -> Sequence[tuple[int, int, int, int, str, int, int]]:
        """List reports, newest first, those that are done with too if asked.

        Each is its number, by whom, of whom, message, reason, when, and when it was done (ms).
        """
        which = "" if done else " AND done = 0"
        return db.execute(
            "SELECT id, account, user, message, reason, created, done FROM report"
            f" WHERE id < ?{which} ORDER BY id DESC LIMIT ? OFFSET ?",
            (before, size, skip),
        ).fetchall()

    @writes(grows=False)
    def close_report(self, journal: Journal, number: int) -> int:
        """Note that a report is done with, and give whom it is about.

        Raises: Refusal 4005 for one that is not there.
        """
        found = journal.db.execute("SELECT user FROM report WHERE id = ?", (number,)).fetchone()
        if found is None:
            raise Refusal(Status.NOT_FOUND, "no such report", field="number")
        change = "UPDATE report SET done = ? WHERE id = ? AND done = 0"
        journal.db.execute(change, (journal.now, number))
        return int(found[0])
