"""The newest msgId that was confirmed, in a file of its own: does the store still know it?

A log that was cut short looks like one that ended there, and SQLite takes it so; then confirmed
messages are gone without a word, and their ids are given out again. So behind each commit with
messages the newest msgId is written here. That needs no sync: what is here was written after the
sync of its commit, so whatever a power cut leaves of it, the store has as much or more.
"""

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from ..errors import StoreRefused

FILE = "newest"
DIGITS = 20


class Newest:
    """Keep a msgId in a file; one that cannot be written is none."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._file = -1

    def open(self, known: int) -> None:
        """Take the file over; raises StoreRefused when it has more than the store knows."""
        check_newest(self._path.parent, known)
        with suppress(OSError):
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.note(known)

    def note(self, number: int) -> None:
        """Write down what is committed; nothing is lost where that fails."""
        with suppress(OSError):
            os.pwrite(self._file, b"%0*d\n" % (DIGITS, number), 0)

    def close(self) -> None:
        """Leave the file; idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def newest_in(db: sqlite3.Connection) -> int:
    """Give the newest msgId that a store knows, also when its message is gone."""
    query = (
        "SELECT max(coalesce((SELECT max(id) FROM message), 0), coalesce((SELECT CAST(value"
        " AS INTEGER) FROM meta WHERE key = 'msg_id'), 0))"
    )
    found: int = db.execute(query).fetchone()[0]
    return found


def check_newest(folder: Path, known: int) -> None:
    """Refuse a store that ends before what was confirmed."""
    path = folder / FILE
    try:
        text = path.read_bytes()
    except OSError:
        return
    confirmed = int(text) if len(text) == DIGITS + 1 and text[:-1].isdigit() else 0
    if confirmed > known:
        raise StoreRefused(
            f"{folder}: messages up to {confirmed} were confirmed, and the store ends at {known}:"
            f" restore a backup, or remove {path} to go on without them"
        )
