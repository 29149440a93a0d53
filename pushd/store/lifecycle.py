"""The end of accounts, and what people tell the operator about each other.

A deleted account keeps its number and its place in conversations, and nothing else: others see a
deleted user. A disabled one keeps everything but may do nothing.
"""

import sqlite3

from ..errors import Refusal
from ..model import Actor
from ..status import Status
from .devices import drop_devices
from .groups import hand_over, tell_left
from .indexes import CHAT_PARTS, QUEUE_TABLES
from .journal import Journal
from .messages import readable
from .noun import Noun, writes
from .records import system_key
from .references import disown

MOST_REPORTS = 1000  # of one account
# Rows that are about an account alone, by table and column.
OWN_ROWS = (
    ("friendship", "account"),
    ("friendship", "friend"),
    ("friend_request", "account"),
    ("friend_request", "asker"),
    ("block", "account"),
    ("block", "blocked"),
    ("join_request", "account"),
    ("login_address", "account"),
)


class Lifecycle(Noun):
    """The verbs of endings."""

    @writes(grows=False)
    def delete(self, journal: Journal, actor: Actor) -> None:
        """Remove the caller and all that is theirs alone; what they said to others stays."""
        _delete(journal, actor.account, actor.device)

    @writes(grows=False)
    def remove(self, journal: Journal, account: int) -> None:
        """Remove an account as its owner can; its connections end.

        For the operator. Raises Refusal 6004 for an unknown user.
        """
        if journal.mailbox(account) is None:
            raise Refusal(Status.NULL_USER, field="user")
        _delete(journal, account, 0)
        journal.signals.append(("revoked", account))

    @writes()
    def set_password(self, journal: Journal, account: int, password: bytes) -> None:
        """Store another password hash and sign everybody out who uses the account.

        For the operator. Raises Refusal 6004 for an unknown user.
        """
        if journal.mailbox(account) is None:
            raise Refusal(Status.NULL_USER, field="user")
        _drop_devices(journal, account, 0)
        change = "UPDATE account SET password = ?, generation = generation + 1 WHERE id = ?"
        journal.db.execute(change, (password, account))
        journal.forget_account(account)
        journal.signals.append(("revoked", account))

    @writes(grows=False)
    def set_disabled(self, journal: Journal, account: int, disabled: bool) -> None:
        """Let an account do nothing, or everything again; its groups go to others.

        For the operator. Raises Refusal 6004 for an unknown user.
        """
        if journal.mailbox(account) is None:
            raise Refusal(Status.NULL_USER, field="userId")
        if disabled:
            hand_over(journal, account)
            _drop_devices(journal, account, 0)
            journal.signals.append(("revoked", account))
        change = "UPDATE account SET disabled = ?, generation = generation + 1 WHERE id = ?"
        journal.db.execute(change, (disabled, account))
        journal.forget_account(account)
        journal.forget_routes(account)

    @writes()
    def report(self, journal: Journal, actor: Actor, user: int, message: int, reason: str) -> None:
        """Keep a report of a user, or of a message that the caller can read, for the operator.

        Raises Refusal 6004 or 4005 for what does not exist, 4006 after too many.
        """
        db, account = journal.db, actor.account
        if message:
            user = readable(db, account, message)[1]
        elif not db.execute("SELECT 1 FROM account WHERE id = ?", (user,)).fetchone():
            raise Refusal(Status.NULL_USER, field="userId")
        count = "SELECT count(*) FROM report WHERE account = ?"
        if db.execute(count, (account,)).fetchone()[0] >= MOST_REPORTS:
            raise Refusal(Status.LIMIT_REACHED, "too many reports")
        add = "INSERT INTO report (account, user, message, reason, created) VALUES (?, ?, ?, ?, ?)"
        db.execute(add, (account, user, message, reason, journal.now))


def _delete(journal: Journal, account: int, device: int) -> None:
    """Remove an account; the device in use, if there is one, is not told by a last frame."""
    db = journal.db
    _leave_groups(journal, account)
    _drop_devices(journal, account, device)
    for table, column in OWN_ROWS:
        db.execute(f"DELETE FROM {table} WHERE {column} = ?", (account,))
    # What the operator did stays; from where somebody logged in goes with them.
    db.execute("DELETE FROM audit WHERE account = ? AND kind <> 0", (account,))
    _drop_line(journal, account)
    _drop_system_chat(db, account)
    # The newest message may be among them; its id is never given again.
    journal.keep_next_id()
    disown(journal, account)
    db.execute(
        "UPDATE account SET phone = NULL, password = x'', username = '', name_key = NULL,"
        " folded = '', avatar = '', desc = '', sex = 0, last_seen = 0, show_presence = 0,"
        " read_receipts = 0, generation = generation + 1 WHERE id = ?",
        (account,),
    )
    journal.forget_account(account)
    journal.forget_routes(account)


def _leave_groups(journal: Journal, account: int) -> None:
    hand_over(journal, account)
    query = (
        "SELECT c.key FROM member m JOIN chat c ON c.id = m.chat JOIN groups g ON g.chat = m.chat"
        " WHERE m.account = ? AND m.final IS NULL"
    )
    for (key,) in journal.db.execute(query, (account,)).fetchall():
        group = journal.groups.find(journal.db, key)
        if group is not None:
            tell_left(journal, group, account)


def _drop_devices(journal: Journal, account: int, own: int) -> None:
    """End all devices of an account; the one in use is not told by a last frame."""
    query = "SELECT id FROM device WHERE account = ? AND token IS NOT NULL AND id <> ?"
    drop_devices(journal, account, [row[0] for row in journal.db.execute(query, (account, own))])
    if own:
        drop_devices(journal, account, [own], quietly=True)


def _drop_line(journal: Journal, account: int) -> None:
    """Remove what waits for the account's next device."""
    journal.flush()
    journal.forget_account(account)
    lines = "SELECT id FROM device WHERE account = ?"
    for table in (*QUEUE_TABLES, "position"):
        journal.db.execute(f"DELETE FROM {table} WHERE device IN ({lines})", (account,))
    journal.db.execute("DELETE FROM device WHERE account = ?", (account,))


def _drop_system_chat(db: sqlite3.Connection, account: int) -> None:
    """Remove what the server said to the account."""
    found = db.execute("SELECT id FROM chat WHERE key = ?", (system_key(account),)).fetchone()
    if found is None:
        return
    for part in CHAT_PARTS:
        ids = f"SELECT message FROM {part} WHERE chat = ?"
        db.execute(f"DELETE FROM message WHERE id IN ({ids})", found)
        db.execute(f"DELETE FROM {part} WHERE chat = ?", found)
    for table, column in (("member", "chat"), ("chat", "id")):
        db.execute(f"DELETE FROM {table} WHERE {column} = ?", found)
