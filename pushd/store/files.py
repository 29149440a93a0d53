"""Stored files: whose they are, how far uploads have come, and what may be removed.

Only rows are here; the bytes are elsewhere on the disk, written before their row is committed and
removed after it is gone. Files are one for all by their content, each owner has a row of their own.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..clock import DAY_MS, HOUR_MS
from ..config import Media
from ..errors import BadField, Refusal
from ..model import Actor
from ..status import Status
from .journal import Journal
from .noun import Noun, reads, writes
from .references import UNUSED, FileRow, find_readable


class Upload(NamedTuple):
    """How far an upload has come."""

    id: str
    size: int  # bytes that are synced
    start: int  # where the last part begins
    digest: bytes  # SHA-256 of the last part
    path: str  # of the file that it became, "" while it is unfinished

    def repeats(self, offset: int, length: int, digest: bytes) -> bool:
        """Tell whether a part is the last one once more."""
        return offset == self.start and offset + length == self.size and digest == self.digest


class Files(Noun):
    """The verbs of files."""

    settings = Media()  # the quotas and times

    # --- saving ---------------------------------------------------------------------------

    @writes()
    def add(
        self, journal: Journal, actor: Actor, name: str, file: FileRow, thumbnail: FileRow | None
    ) -> None:
        """Make an account the owner of a file on the disk; raises Refusal 4006."""
        self._add(journal, actor.account, name, file, thumbnail)

    @writes()
    def add_export(self, journal: Journal, actor: Actor, file: FileRow, hours: int) -> None:
        """Make an account the owner of an archive of its own, outside its quota, for some hours."""
        number = _upsert(journal, file, None)
        # The sweep counts from here when it looks for files that nothing refers to.
        saved = journal.now - self.settings.orphan_days * DAY_MS + hours * HOUR_MS
        journal.db.execute("UPDATE file SET saved = ? WHERE id = ?", (saved, number))
        journal.db.execute(
            "INSERT OR IGNORE INTO file_owner VALUES (?, ?, 0, 'export.zip', ?)",
            (actor.account, number, journal.now),
        )

    @reads()
    def owned(
        self, db: sqlite3.Connection, account: int, after: int, most: int
    ) -> list[tuple[int, str, str]]:
        """List an account's files by rising number: number, path, label; no archives."""
        query = (
            "SELECT f.id, f.path, o.name FROM file_owner o JOIN file f ON f.id = o.file"
            " WHERE o.account = ? AND f.id > ? AND f.mime <> 'application/zip'"
            " ORDER BY f.id LIMIT ?"
        )
        return db.execute(query, (account, after, most)).fetchall()

    @writes()
    def begin(self, journal: Journal, actor: Actor, upload: str, size: int, digest: bytes) -> None:
        """Note the first part of an upload; raises Refusal 4006."""
        query = "SELECT count(*) FROM upload WHERE account = ? AND file IS NULL AND changed >= ?"
        values = (actor.account, self._oldest(journal.now))
        if journal.db.execute(query, values).fetchone()[0] >= self.settings.uploads:
            raise Refusal(Status.LIMIT_REACHED, "you have too many unfinished uploads")
        self._check_quota(journal, actor.account, size)
        journal.db.execute(
            "INSERT INTO upload (id, account, size, start, digest, changed)"
            " VALUES (?, ?, ?, 0, ?, ?)",
            (upload, actor.account, size, digest, journal.now),
        )

    @writes()
    def grow(
        self,
        journal: Journal,
        actor: Actor,
        upload: str,
        offset: int,
        size: int,
        digest: bytes,
    ) -> None:
        """Note the next part of an upload; raises Refusal 4005, 4003 for its place, 4006."""
        self._check_place(journal, actor, upload, offset)
        self._check_quota(journal, actor.account, size, count=0)
        journal.db.execute(
            "UPDATE upload SET size = ?, start = ?, digest = ?, changed = ? WHERE id = ?",
            (offset + size, offset, digest, journal.now, upload),
        )

    @writes()
    def finish(self, journal: Journal, actor: Actor, upload: str, name: str, file: FileRow) -> None:
        """Make a file of an upload that is whole; raises Refusal 4005, 4003, 4006."""
        self._check_place(journal, actor, upload, file[1])
        # What the upload takes of the quota becomes free.
        number = self._add(journal, actor.account, name, file, None, free=(file[1], 1))
        change = "UPDATE upload SET file = ?, changed = ? WHERE id = ?"
        journal.db.execute(change, (number, journal.now, upload))

    @writes(grows=False)
    def abandon(self, journal: Journal, actor: Actor, upload: str) -> None:
        """Forget an unfinished upload of one's own."""
        remove = "DELETE FROM upload WHERE id = ? AND account = ? AND file IS NULL"
        journal.db.execute(remove, (upload, actor.account))

    # --- reading --------------------------------------------------------------------------

    @reads()
    def readable(self, db: sqlite3.Connection, account: int, path: str) -> FileRow:
        """Find a file that an account may read; raises Refusal 4005."""
        found = find_readable(db, account, path, self.clock.wall())
        if found is None:
            raise Refusal(Status.NOT_FOUND, "no such file", field="path")
        return found

    @reads()
    def upload(self, db: sqlite3.Connection, account: int, upload: str) -> Upload:
        """Tell how far an upload of one's own has come; raises Refusal 4005."""
        return self._upload(db, account, upload, self.clock.wall())

    # --- upkeep ---------------------------------------------------------------------------

    @reads()
    def expired_uploads(self, db: sqlite3.Connection, most: int) -> list[str]:
        """List uploads whose time is over."""
        query = "SELECT id FROM upload WHERE changed < ? ORDER BY changed LIMIT ?"
        return [row[0] for row in db.execute(query, (self._oldest(self.clock.wall()), most))]

    @writes(grows=False)
    def drop_upload(self, journal: Journal, upload: str) -> None:
        """Forget an upload whose time is over."""
        remove = "DELETE FROM upload WHERE id = ? AND changed < ?"
        journal.db.execute(remove, (upload, self._oldest(journal.now)))

    @reads(long=True)
    def total(self, db: sqlite3.Connection) -> int:
        """Give the bytes of all files."""
        query = "SELECT coalesce(sum(size), 0) FROM file"
        return int(db.execute(query).fetchone()[0])

    @reads(long=True)
    def unused(self, db: sqlite3.Connection, after: int, most: int) -> tuple[list[str], int]:
        """List files behind an id that nothing refers to; and the id to go on with, 0 at the end.

        Looks at `most` files, whatever it finds.
        """
        query = (
            "SELECT max(id), count(*) FROM (SELECT id FROM file WHERE id > ? ORDER BY id LIMIT ?)"
        )
        last, count = db.execute(query, (after, most)).fetchone()
        if not count:
            return [], 0
        values = self._times(self.clock.wall()) | {"after": after, "last": last}
        query = f"SELECT f.path FROM file f WHERE f.id > :after AND f.id <= :last AND {UNUSED}"
        paths = [row[0] for row in db.execute(query, values)]
        return paths, last if count == most else 0

    @writes(grows=False)
    def remove(self, journal: Journal, path: str) -> list[str]:
        """Remove a file that nothing refers to, with its thumbnail; gives what is to be deleted."""
        db = journal.db
        values = self._times(journal.now) | {"path": path}
        query = f"SELECT f.id FROM file f WHERE f.path = :path AND {UNUSED}"
        found = db.execute(query, values).fetchone()
        if found is None:
            return []
        query = "SELECT path FROM file WHERE id = ?1 OR original = ?1"
        paths = [row[0] for row in db.execute(query, found)]
        for table in ("file_owner", "file_ref", "upload"):
            db.execute(f"DELETE FROM {table} WHERE file = ?", found)
        db.execute("DELETE FROM file WHERE original = ?", found)
        db.execute("DELETE FROM file WHERE id = ?", found)
        return paths

    @reads(long=True)
    def strays(self, db: sqlite3.Connection, paths: Sequence[str]) -> list[str]:
        """Tell which of these paths have no row."""
        query = "SELECT 1 FROM file WHERE path = ?"
        return [path for path in paths if not db.execute(query, (path,)).fetchone()]

    @reads(long=True)
    def stray_uploads(self, db: sqlite3.Connection, uploads: Sequence[str]) -> list[str]:
        """Tell which of these uploads have no row, or are finished."""
        query = "SELECT 1 FROM upload WHERE id = ? AND file IS NULL"
        return [upload for upload in uploads if not db.execute(query, (upload,)).fetchone()]

    # --- in the writer's thread -----------------------------------------------------------

    def _add(
        self,
        journal: Journal,
        account: int,
        name: str,
        file: FileRow,
        thumbnail: FileRow | None,
        free: tuple[int, int] = (0, 0),
    ) -> int:
        db = journal.db
        number = _upsert(journal, file, None)
        if thumbnail is not None:
            _upsert(journal, thumbnail, number)
        query = "SELECT 1 FROM file_owner WHERE account = ? AND file = ?"
        if not db.execute(query, (account, number)).fetchone():
            self._check_quota(journal, account, file[1] - free[0], count=1 - free[1])
        db.execute(
            "INSERT INTO file_owner VALUES (?1, ?2, ?3, ?4, ?5)"
            " ON CONFLICT (account, file) DO UPDATE SET name = ?4",
            (account, number, file[1], name, journal.now),
        )
        return number

    def _check_quota(self, journal: Journal, account: int, size: int, *, count: int = 1) -> None:
        """Refuse what goes beyond an account's stored and unfinished files together: 4006."""
        used, files = journal.db.execute(
            "SELECT coalesce(sum(size), 0), count(*) FROM (SELECT size FROM file_owner"
            " WHERE account = ?1 UNION ALL SELECT size FROM upload WHERE account = ?1"
            " AND file IS NULL)",
            (account,),
        ).fetchone()
        if used + size > self.settings.quota_bytes:
            raise Refusal(Status.LIMIT_REACHED, "your files take too many bytes")
        if files + count > self.settings.quota_count:
            raise Refusal(Status.LIMIT_REACHED, "you have too many files")

    def _check_place(self, journal: Journal, actor: Actor, upload: str, offset: int) -> None:
        """Refuse a part that does not begin where the upload ends."""
        known = self._upload(journal.db, actor.account, upload, journal.now)
        if known.path:
            raise _no_upload()
        if known.size != offset:
            raise BadField("offset", f"offset is {known.size}")

    def _upload(self, db: sqlite3.Connection, account: int, upload: str, now: int) -> Upload:
        query = (
            "SELECT u.id, u.size, u.start, u.digest, coalesce(f.path, '') FROM upload u"
            " LEFT JOIN file f ON f.id = u.file WHERE u.id = ? AND u.account = ? AND u.changed >= ?"
        )
        found: Any = db.execute(query, (upload, account, self._oldest(now))).fetchone()
        if found is None:
            raise _no_upload()
        return Upload(*found)

    def _oldest(self, now: int) -> int:
        """Give since when the last part of a valid upload came."""
        return now - self.settings.upload_hours * HOUR_MS

    def _times(self, now: int) -> dict[str, Any]:
        return {"now": now, "before": now - self.settings.orphan_days * DAY_MS}


def _upsert(journal: Journal, file: FileRow, original: int | None) -> int:
    """Give the number of a file, made if it is new."""
    number: int = journal.db.execute(
        "INSERT INTO file (path, size, md5, mime, saved, original) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (path) DO UPDATE SET size = excluded.size, md5 = excluded.md5,"
        " saved = excluded.saved RETURNING id",
        (*file, journal.now, original),
    ).fetchone()[0]
    return number


def _no_upload() -> Refusal:
    return Refusal(Status.NOT_FOUND, "no such upload", field="upload")
