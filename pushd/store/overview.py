"""What an operator sees of the store: users by id, phone or name, and how much there is."""

import sqlite3
from contextlib import suppress
from pathlib import Path

from ..audit import account_number
from ..errors import Refusal
from ..model import Account, StoreOut
from ..names import fold, name_key, normal_phone
from ..status import Status
from .accounts import find_account
from .engine import FILE
from .noun import Noun, reads

# A row of `users`: id, name, phone, disabled, devices, last seen, created.
UserRow = tuple[int, str, str, int, int, int, int]

USERS = (
    "SELECT id, username, phone, disabled,"
    " (SELECT count(*) FROM device WHERE account = a.id AND token IS NOT NULL),"
    " max(last_seen, coalesce((SELECT max(last_seen) FROM device"
    "  WHERE account = a.id AND token IS NOT NULL), 0)), created"
    " FROM account a WHERE phone IS NOT NULL"
)
# What is counted, by what it is called.
COUNTED = {
    "users": "account WHERE phone IS NOT NULL",
    "devices": "device WHERE token IS NOT NULL",
    "groups": "groups WHERE NOT dissolved",
    "messages": "message",
    "queued": "queue",
    "files": "file",
}


class Overview(Noun):
    """The reading verbs of operators."""

    folder = Path()  # of the data; the store sets its own

    @reads()
    def find(self, db: sqlite3.Connection, text: str) -> Account:
        """Find whom an operator means by an id, a phone or an exact name.

        Raises: Refusal 6004 for nobody.
        """
        tries: list[tuple[str, str | int]] = [
            ("name_key = ? AND phone IS NOT NULL", name_key(text))
        ]
        number = account_number(text)
        if number:
            tries.insert(0, ("id = ? AND phone IS NOT NULL", number))
        with suppress(Refusal):
            tries.insert(0, ("phone = ?", normal_phone(text)))
        for where, value in tries:
            found = find_account(db, where, value) if value else None
            if found is not None:
                return found
        raise Refusal(Status.NULL_USER, field="user")

    @reads(long=True)
    def users(
        self, db: sqlite3.Connection, text: str, after: int, skip: int, size: int
    ) -> list[UserRow]:
        """List users by rising id whose name or phone holds `text`, or whose id it is."""
        where = "AND id > ?1"
        if text:
            where += " AND (instr(folded, ?4) > 0 OR instr(phone, ?5) > 0 OR id = ?6)"
        values = (after, size, skip, fold(text), text, account_number(text))
        used = values if text else values[:3]
        return db.execute(f"{USERS} {where} ORDER BY id LIMIT ?2 OFFSET ?3", used).fetchall()

    @reads()
    def users_of(self, db: sqlite3.Connection, accounts: list[int]) -> list[UserRow]:
        """Give these users; those that are gone are left out."""
        rows = [db.execute(f"{USERS} AND id = ?", (account,)).fetchone() for account in accounts]
        return [row for row in rows if row is not None]

    @reads(long=True)
    def counts(self, db: sqlite3.Connection) -> StoreOut:
        """Count what the store holds; that takes time on a large one."""
        counted = {
            name: int(db.execute(f"SELECT count(*) FROM {what}").fetchone()[0])
            for name, what in COUNTED.items()
        }
        return StoreOut(**counted)

    @reads()
    def sizes(self, db: sqlite3.Connection) -> tuple[int, int, int]:
        """Give the schema's version, and the bytes of the database and of its write-ahead log."""
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        return version, _size(self.folder / FILE), _size(self.folder / f"{FILE}-wal")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
