"""Which messages refer to which files: who may read a file, use it, and whether anybody does.

A file is read by its owners, by those who may read a message that names it, and by all while it is
an avatar. A recalled or expired message gives no right, and keeps no file. A thumbnail goes with
the picture that it is made of.

The functions that take a Journal run in the writer's thread, in commit order.
"""

import sqlite3
from typing import Any

from ..errors import Refusal
from ..status import Status
from .journal import Journal

# What is known of a file: path, size, md5, mime.
FileRow = tuple[str, int, str, str]

IS_AVATAR = (
    "(EXISTS (SELECT 1 FROM account a WHERE a.avatar = f.path AND a.avatar <> '')"
    " OR EXISTS (SELECT 1 FROM groups g WHERE g.avatar = f.path AND g.avatar <> ''))"
)
# A message that may still be read at ?now.
SHOWN = "(m.original IS NULL AND (m.expires IS NULL OR m.expires > :now))"
# From the chats of the reader on, which are fewer than the messages that name a popular file.
IS_SENT_TO = (
    "EXISTS (SELECT 1 FROM member b CROSS JOIN file_ref r ON r.file = f.id AND r.chat = b.chat"
    " AND r.message > b.first AND (b.final IS NULL OR r.message <= b.final)"
    f" JOIN message m ON m.id = r.message WHERE b.account = :account AND {SHOWN})"
)
IS_OWNED = "EXISTS (SELECT 1 FROM file_owner o WHERE o.account = :account AND o.file = f.id)"
# The file or thumbnail `t` at :path, as far as the account may read `f`, its original.
READABLE = (
    "SELECT t.path, t.size, t.md5, t.mime FROM file t JOIN file f ON f.id = coalesce(t.original,"
    f" t.id) WHERE t.path = :path AND ({IS_OWNED} OR {IS_AVATAR} OR {IS_SENT_TO})"
)
# A file that nothing has referred to and nobody has saved since :before.
UNUSED = (
    f"f.original IS NULL AND f.saved < :before AND NOT {IS_AVATAR} AND NOT EXISTS (SELECT 1"
    f" FROM file_ref r JOIN message m ON m.id = r.message WHERE r.file = f.id AND {SHOWN})"
)


def find_readable(db: sqlite3.Connection, account: int, path: str, now: int) -> FileRow | None:
    """Find a file that an account may read; None also where there is none."""
    values = {"account": account, "path": path, "now": now}
    found: Any = db.execute(READABLE, values).fetchone()
    return found  # type: ignore[no-any-return]  # a row of READABLE


def may_use(journal: Journal, account: int, path: str, field: str = "info") -> None:
    """Refuse a path in a message whose sender may not read the file: 4005."""
    # A message of this very batch may be what gives the right.
    journal.flush()
    if find_readable(journal.db, account, path, journal.now) is None:
        raise Refusal(Status.NOT_FOUND, "no such file", field=field)


def refer(journal: Journal, path: str, chat: int, message: int) -> None:
    """Note that a message names a file; whoever may read the one may read the other."""
    journal.db.execute(
        "INSERT OR IGNORE INTO file_ref SELECT coalesce(original, id), ?, ? FROM file"
        " WHERE path = ?",
        (chat, message, path),
    )


def check_picture(journal: Journal, account: int, path: str, field: str = "avatar") -> None:
    """Refuse an avatar that is no picture of the account's own: 8006."""
    # Nobody owns a thumbnail.
    query = f"SELECT 1 FROM file f WHERE f.path = :path AND f.mime LIKE 'image/%' AND {IS_OWNED}"
    if not journal.db.execute(query, {"account": account, "path": path}).fetchone():
        raise Refusal(Status.FORMAT_ERROR_AVATAR, field=field)


def disown(journal: Journal, account: int) -> None:
    """Take all files and uploads from an account that ends.

    What it never sent and nobody else owns is removed by the next sweep.
    """
    db = journal.db
    db.execute(
        "UPDATE file SET saved = 0 WHERE id IN (SELECT file FROM file_owner WHERE account = ?1)"
        " AND NOT EXISTS (SELECT 1 FROM file_owner WHERE file = file.id AND account <> ?1)",
        (account,),
    )
    db.execute("DELETE FROM file_owner WHERE account = ?", (account,))
    db.execute("DELETE FROM upload WHERE account = ?", (account,))
