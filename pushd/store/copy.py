"""A store that no server has open: the copy in a backup, or the store of a server that stopped.

`Copy` is a connection to such a file, which nobody else uses; a restored copy becomes a store with
a history of its own by `renew`. What a whole store must look like is in `check`.
"""

import secrets
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from ..errors import StoreRefused
from .engine import FILE, Lock, migrations

# msgIds that a restored store leaves out, for each second since its backup and to begin with: far
# more than a server can have given out since then.
IDS_A_SECOND = 1_000_000
# What people count in a backup.
COUNTED = ("account", "device", "chat", "message", "queue", "file")


class FileFact(NamedTuple):
    """What a store says of one file on the disk."""

    path: str
    size: int
    md5: str


def compact(folder: Path) -> tuple[int, int]:
    """Give the free space in a stopped server's store back; tells the bytes before and after.

    Either the whole store is written anew or nothing changes. Raises StoreRefused, in one line.
    """
    path = folder / FILE
    if not path.is_file():
        raise StoreRefused(f"{folder}: there is no store: name its folder by --data")
    lock = Lock(folder)
    try:
        before = path.stat().st_size
        # A copy beside it, and then the log of the whole.
        needed, free = 2 * before, shutil.disk_usage(folder).free
        if free < needed:
            raise StoreRefused(f"{folder}: needs {needed} bytes free, has {free}")
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous=FULL")
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return before, path.stat().st_size
    except sqlite3.Error as problem:
        raise StoreRefused(f"{path}: cannot be written anew: {problem}") from None
    finally:
        lock.release()


class Copy:
    """A closed store, or a copy of one, opened by this program alone."""

    def __init__(self, path: Path, *, readonly: bool = True) -> None:
        self.path = path
        uri = f"{path.absolute().as_uri()}?mode={'ro' if readonly else 'rw'}"
        try:
            self.db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as problem:
            raise StoreRefused(f"{path}: cannot be opened: {problem}") from None
        try:
            if not readonly:
                # It has no other users and is synced by whoever made it.
                self.db.execute("PRAGMA journal_mode=MEMORY")
                self.db.execute("PRAGMA foreign_keys=ON")
            self.schema: int = self.db.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.Error as problem:
            self.db.close()
            raise StoreRefused(f"{path.name}: not a store: {problem}") from None

    def __enter__(self) -> "Copy":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def stop_when(self, stopping: Callable[[], bool]) -> None:
        """Break off long statements once `stopping` holds."""
        self.db.set_progress_handler(stopping, 1_000_000)

    def close(self) -> None:
        """Close it; idempotent."""
        self.db.close()

    def verify(self) -> None:
        """Raise StoreRefused, in one line, for a copy that is damaged, foreign or newer."""
        known = len(migrations())
        if self.schema > known:
            raise StoreRefused(
                f"the store has schema {self.schema}, this pushd knows {known}: install a newer one"
            )
        try:
            found = self.db.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if found != "ok":
                raise StoreRefused(f"the store is damaged: {' '.join(found.split())}")
            if not self.schema or not self.epoch:
                raise StoreRefused("the database is not one of pushd")
            lost = self.db.execute("PRAGMA foreign_key_check").fetchone()
            if lost is not None:
                raise StoreRefused(f"the store is damaged: {lost[0]} refers to a lost {lost[2]}")
        except sqlite3.Error as problem:
            raise StoreRefused(f"the store is damaged: {problem}") from None

    @property
    def epoch(self) -> str:
        """The random name of the store's history; "" when there is none."""
        found = self.db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
        return str(found[0]) if found else ""

    def counts(self) -> dict[str, int]:
        """Count the rows that say how large a store is."""
        count = "SELECT count(*) FROM {}"
        return {
            name: self.db.execute(count.format(name)).fetchone()[0]
            for name in COUNTED
            if self._has(name)
        }

    def files(self) -> Iterator[FileFact]:
        """List the files that the store refers to."""
        if self._has("file"):
            for row in self.db.execute("SELECT path, size, md5 FROM file ORDER BY path"):
                yield FileFact(*row)

    def file(self, path: str) -> FileFact | None:
        """Find one file that the store refers to."""
        if not self._has("file"):
            return None
        query = "SELECT path, size, md5 FROM file WHERE path = ?"
        found: Any = self.db.execute(query, (path,)).fetchone()
        return FileFact(*found) if found else None

    def media(self) -> tuple[int, int]:
        """Count the files that the store refers to, and their bytes."""
        if not self._has("file"):
            return 0, 0
        query = "SELECT count(*), coalesce(sum(size), 0) FROM file"
        found: tuple[int, int] = self.db.execute(query).fetchone()
        return found

    def drop_uploads(self) -> None:
        """Forget unfinished uploads: their bytes are in no backup."""
        if self._has("upload"):
            self.db.execute("DELETE FROM upload WHERE file IS NULL")

    def renew(self, seconds: int) -> str:
        """Begin a new history, `seconds` after the copy was made; gives its epoch.

        Where queues stand is kept. msgIds go on far behind all that may have been given out since,
        so that no client takes a new message for one that it knows.
        """
        epoch = secrets.token_urlsafe(9)
        newest = (
            "SELECT max(coalesce((SELECT max(id) FROM message), 0), coalesce((SELECT"
            " CAST(value AS INTEGER) FROM meta WHERE key = 'msg_id'), 0))"
        )
        highest = self.db.execute(newest).fetchone()[0]
        following = highest + IDS_A_SECOND * (max(seconds, 0) + 1)
        upsert = "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2"
        self.db.execute("BEGIN")
        self.db.execute(upsert, ("epoch", epoch))
        self.db.execute(upsert, ("msg_id", str(following)))
        self.db.execute("COMMIT")
        return epoch

    def _has(self, table: str) -> bool:
        query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
        return self.db.execute(query, (table,)).fetchone() is not None


__all__ = ["COUNTED", "FILE", "Copy", "FileFact", "compact"]
