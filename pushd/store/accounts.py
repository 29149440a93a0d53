"""Accounts: who people are, as themselves and as others see them."""

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial

from ..errors import Refusal
from ..model import FIRST_USER, Account, AccountOut, Actor, PrivacyOut, UserOut
from ..names import fold, name_key
from ..status import Status
from .devices import drop_devices
from .journal import Journal
from .noun import Noun, reads, writes
from .references import check_picture

ACCOUNT = (
    "SELECT id, phone, password, username, avatar, desc, sex, modified, generation, disabled,"
    " find_by_phone, show_presence, read_receipts, EXISTS (SELECT 1 FROM device"
    " WHERE account = account.id AND token IS NOT NULL) FROM account"
)
# A user as ?1 sees them; the alias and whether they are friends come from the viewer's side.
USER = (
    "SELECT a.id, a.username, a.phone, a.avatar, a.desc, a.sex, coalesce(f.alias, ''),"
    " (SELECT count(*) FROM friendship WHERE account = a.id), f.account IS NOT NULL, a.modified"
    " FROM account a LEFT JOIN friendship f ON f.account = ?1 AND f.friend = a.id"
)
# The name of a user who deleted their account.
DELETED = "deleted user"
# What complete_account may change, with its column.
PROFILE = ("avatar", "desc", "sex")


class Accounts(Noun):
    """The verbs of accounts."""

    @writes()
    def register(self, journal: Journal, phone: str, password: bytes, username: str) -> Account:
        """Make an account; raises Refusal 7001 or 7000 for what is taken, in this order."""
        db = journal.db
        if db.execute("SELECT 1 FROM account WHERE phone = ?", (phone,)).fetchone():
            raise Refusal(Status.SAME_PHONE, field="phone")
        key = _free_key(db, username, 0)
        newest = "SELECT coalesce(max(id), ?) + 1 FROM account"
        account: int = db.execute(newest, (FIRST_USER - 1,)).fetchone()[0]
        db.execute(
            "INSERT INTO account (id, phone, password, username, name_key, folded, created,"
            " modified) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)",
            (account, phone, password, username, key, fold(username), journal.now),
        )
        line = db.execute(
            "INSERT INTO device (account, created, last_seen, since) VALUES (?1, ?2, ?2, ?3)"
            " RETURNING id",
            (account, journal.now, journal.next_id - 1),
        ).fetchone()[0]
        db.execute("INSERT INTO position (device) VALUES (?)", (line,))
        return _account(db, "id = ?", account)

    @reads()
    def by_phone(self, db: sqlite3.Connection, phone: str) -> Account | None:
        """Find the account of a phone."""
        return find_account(db, "phone = ?", phone)

    @reads()
    def by_id(self, db: sqlite3.Connection, account: int) -> Account | None:
        """Find an account by its number."""
        return find_account(db, "id = ? AND phone IS NOT NULL", account)

    @reads()
    def as_seen(
        self, db: sqlite3.Connection, viewer: int, account: int, phone: str = ""
    ) -> AccountOut:
        """Give an account as the viewer may see it; `phone` is what they searched by.

        Raises Refusal 6004 for a user that does not exist.
        """
        users = self.users(db, viewer, "a.id = ?2 AND a.phone IS NOT NULL", (account,), phone)
        if not users:
            raise Refusal(Status.NULL_USER, field="userId")
        seen = AccountOut(users[0], users[0].phone)
        if viewer == account:
            own = _account(db, "id = ?", account)
            seen.is_bind = own.bound
            seen.privacy = PrivacyOut(own.find_by_phone, own.show_presence, own.read_receipts)
        return seen

    @reads(long=True)
    def search_names(
        self, db: sqlite3.Connection, viewer: int, part: str, after: int, skip: int, size: int
    ) -> list[UserOut]:
        """Find users whose name holds `part`, folded and literal, by rising id."""
        where = (
            "a.folded <> '' AND instr(a.folded, ?2) > 0 AND a.id > ?3 AND a.phone IS NOT NULL"
            " AND NOT a.disabled ORDER BY a.id LIMIT ?4 OFFSET ?5"
        )
        return self.users(db, viewer, where, (fold(part), after, size, skip))

    @reads()
    def search_phone(self, db: sqlite3.Connection, viewer: int, phone: str) -> list[UserOut]:
        """Find the user of exactly this phone, if they let themselves be found by it."""
        where = "a.phone = ?2 AND NOT a.disabled AND (a.find_by_phone OR a.id = ?1)"
        return self.users(db, viewer, where, (phone,), phone)

    @writes()
    def complete(
        self, journal: Journal, actor: Actor, username: str | None, profile: dict[str, str | int]
    ) -> None:
        """Change what is given of name, avatar, desc and sex; raises Refusal 7000, 8006."""
        db, account = journal.db, actor.account
        if "avatar" in profile:
            check_picture(journal, account, str(profile["avatar"]))
        if username is not None:
            key = _free_key(db, username, account)
            db.execute(
                "UPDATE account SET username = ?, name_key = ?, folded = ? WHERE id = ?",
                (username, key, fold(username), account),
            )
        for column in PROFILE:
            if column in profile:
                change = f"UPDATE account SET {column} = ? WHERE id = ?"
                db.execute(change, (profile[column], account))
        db.execute("UPDATE account SET modified = ? WHERE id = ?", (journal.now, account))

    async def change_password(
        self, actor: Actor, password: bytes, then: Callable[[Actor], None] | None = None
    ) -> Actor:
        """Store another password hash and revoke every other login; gives the caller's new one.

        `then` runs on the loop in commit order.
        """
        change = partial(self._change_password, actor, password)
        return await self.writer.call(change, actor=actor, then=then)

    def _change_password(self, actor: Actor, password: bytes, journal: Journal) -> Actor:
        db, account = journal.db, actor.account
        db.execute(
            "UPDATE account SET password = ?, generation = generation + 1 WHERE id = ?",
            (password, account),
        )
        query = "SELECT id FROM device WHERE account = ? AND token IS NOT NULL AND id <> ?"
        others = [row[0] for row in db.execute(query, (account, actor.device))]
        drop_devices(journal, account, others)
        # Without this the writer would go on to take the logins that have no device for valid.
        journal.forget_account(account)
        generation = actor.generation + 1
        return Actor(account, actor.device, generation)

    @writes()
    def renew_hash(self, journal: Journal, account: int, old: bytes, new: bytes) -> None:
        """Replace a hash of another cost, unless the password was changed meanwhile."""
        change = "UPDATE account SET password = ? WHERE id = ? AND password = ?"
        journal.db.execute(change, (new, account, old))

    @writes(grows=False)
    def set_privacy(self, journal: Journal, actor: Actor, choices: dict[str, bool]) -> None:
        """Change what is given of find_by_phone, show_presence and read_receipts."""
        for column in ("find_by_phone", "show_presence", "read_receipts"):
            if column in choices:
                change = f"UPDATE account SET {column} = ? WHERE id = ?"
                journal.db.execute(change, (choices[column], actor.account))
        journal.signals.append(("privacy", actor.account, dict(choices)))

    @reads()
    def knows_address(self, db: sqlite3.Connection, account: int, address: str, since: int) -> bool:
        """Tell whether a login from this address succeeded since then."""
        query = "SELECT 1 FROM login_address WHERE account = ? AND address = ? AND seen >= ?"
        return db.execute(query, (account, address, since)).fetchone() is not None

    async def enter(self, account: Account, address: str, *, then: Callable[[None], None]) -> None:
        """Note that the right password was given, from this address if it is not "".

        Raises Refusal 10000 when the password was changed since `account` was read. `then` runs
        on the loop in commit order.
        """
        actor = Actor(account.id, 0, account.generation)

        def change(journal: Journal) -> None:
            if journal.box_of(actor) is None:
                raise Refusal(Status.ERROR_PASSWORD, field="password")
            if address:
                _note_address(journal, account.id, address)

        await self.writer.call(change, grows=False, then=then)

    def users(
        self,
        db: sqlite3.Connection,
        viewer: int,
        where: str,
        values: Sequence[str | int],
        phone: str = "",
    ) -> list[UserOut]:
        """Read users as the viewer may see them; runs on a reader's connection."""
        rows = db.execute(f"{USER} WHERE {where}", (viewer, *values))
        return [user_out(row, viewer, self.dates.text(row[9]), phone) for row in rows]


def user_out(row: Sequence[object], viewer: int, modified: str, phone: str = "") -> UserOut:
    """Make a user of a row of USER, with the phone only where the viewer may see it."""
    shown = row[0] == viewer or row[8] or (phone and row[2] == phone)
    return UserOut(
        str(row[0]),
        str(row[1]) if row[2] is not None else DELETED,
        str(row[2]) if shown and row[2] else "",
        str(row[3]),
        str(row[4]),
        int(str(row[5])),
        str(row[6]),
        int(str(row[7])),
        bool(row[8]),
        modified,
    )


def _note_address(journal: Journal, account: int, address: str) -> None:
    """Note that a login from this address succeeded; the oldest of 100 make room."""
    journal.db.execute(
        "INSERT INTO login_address VALUES (?1, ?2, ?3)"
        " ON CONFLICT (account, address) DO UPDATE SET seen = ?3",
        (account, address, journal.now),
    )
    journal.db.execute(
        "DELETE FROM login_address WHERE account = ?1 AND address IN (SELECT address FROM"
        " login_address WHERE account = ?1 ORDER BY seen DESC LIMIT -1 OFFSET 100)",
        (account,),
    )


def find_account(db: sqlite3.Connection, where: str, value: str | int) -> Account | None:
    """Find an account by a condition with one parameter."""
    row = db.execute(f"{ACCOUNT} WHERE {where}", (value,)).fetchone()
    if row is None:
        return None
    return Account(*row[:9], *(bool(flag) for flag in row[9:]))


def _account(db: sqlite3.Connection, where: str, value: int) -> Account:
    found = find_account(db, where, value)
    assert found is not None, "the account was there a moment ago"
    return found


def _free_key(db: sqlite3.Connection, username: str, account: int) -> str | None:
    """Give the key by which a name is unique; raises Refusal 7000 if another account has it."""
    if not username:
        return None
    key = name_key(username)
    query = "SELECT 1 FROM account WHERE name_key = ? AND id <> ?"
    if db.execute(query, (key, account)).fetchone():
        raise Refusal(Status.SAME_USERNAME, field="username")
    return key
