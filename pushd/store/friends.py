"""Friends, requests and blocks."""

import sqlite3
from collections.abc import Sequence

from ..errors import Refusal
from ..model import Actor, RequestOut, UserOut
from ..names import fold
from ..status import Status
from . import requests
from .accounts import USER, user_out
from .journal import Journal
from .noun import Noun, reads, writes


class Friends(Noun):
    """The verbs of friends; changes take effect at one point in commit order."""

    @writes()
    def ask(self, journal: Journal, actor: Actor, to: int, description: str) -> None:
        """Ask somebody to be friends, or become friends if they had asked already."""
        requests.ask(journal, actor.account, to, description, actor.device)

    @writes()
    def accept(self, journal: Journal, actor: Actor, asker: int) -> None:
        """Accept a request; raises Refusal 12000 for a friend, 4005 if there is no request."""
        account = actor.account
        route = _known(journal, account, asker)
        if route:
            raise Refusal(Status.EXIST_FRIENDS, field="userId")
        if not requests.asked(journal, asker, account):
            raise Refusal(Status.NOT_FOUND, "no such request", field="userId")
        requests.check_room(journal, account, asker)
        requests.befriend(journal, account, asker)

    @writes(grows=False)
    def reject(self, journal: Journal, actor: Actor, asker: int) -> None:
        """Refuse a request; nobody is told. Raises Refusal 4005 if there is none."""
        _known(journal, actor.account, asker)
        if not requests.asked(journal, asker, actor.account):
            raise Refusal(Status.NOT_FOUND, "no such request", field="userId")
        remove = "DELETE FROM friend_request WHERE account = ? AND asker = ?"
        journal.db.execute(remove, (actor.account, asker))

    @writes(grows=False)
    def delete(self, journal: Journal, actor: Actor, friend: int) -> None:
        """End a friendship on both sides; raises Refusal 4004 if there is none."""
        _friend(journal, actor.account, friend)
        for one, other in ((actor.account, friend), (friend, actor.account)):
            remove = "DELETE FROM friendship WHERE account = ? AND friend = ?"
            journal.db.execute(remove, (one, other))
        journal.forget_pair(actor.account, friend)
        journal.signals.append(("strangers", actor.account, friend))

    @writes()
    def set_alias(self, journal: Journal, actor: Actor, friend: int, alias: str) -> None:
        """Give a friend a name of one's own; raises Refusal 4004 if they are none."""
        _friend(journal, actor.account, friend)
        change = "UPDATE friendship SET alias = ?, folded = ? WHERE account = ? AND friend = ?"
        journal.db.execute(change, (alias, fold(alias), actor.account, friend))

    @writes()
    def block(self, journal: Journal, actor: Actor, user: int) -> None:
        """Refuse everything that somebody sends to the caller from now on."""
        if user == actor.account:
            raise Refusal(Status.NOT_ALLOWED, "this is yourself", field="userId")
        _known(journal, actor.account, user)
        count = "SELECT count(*) FROM block WHERE account = ?"
        if journal.db.execute(count, (actor.account,)).fetchone()[0] >= journal.most_friends:
            raise Refusal(Status.LIMIT_REACHED, "too many users are blocked")
        add = "INSERT OR IGNORE INTO block VALUES (?, ?, ?)"
        journal.db.execute(add, (actor.account, user, journal.now))
        remove = "DELETE FROM friend_request WHERE account = ? AND asker = ?"
        for one, other in ((actor.account, user), (user, actor.account)):
            journal.db.execute(remove, (one, other))
        journal.forget_pair(actor.account, user)

    @writes(grows=False)
    def unblock(self, journal: Journal, actor: Actor, user: int) -> None:
        """Let somebody write to the caller again; unblocking a second time changes nothing."""
        _known(journal, actor.account, user)
        remove = "DELETE FROM block WHERE account = ? AND blocked = ?"
        journal.db.execute(remove, (actor.account, user))
        journal.forget_pair(actor.account, user)

    @reads()
    def of(
        self, db: sqlite3.Connection, account: int, part: str, after: int, skip: int, size: int
    ) -> list[UserOut]:
        """List friends by rising id; `part` is looked for in names and aliases."""
        where = (
            "f.account = ?1 AND a.id > ?3 AND (?2 = '' OR instr(a.folded, ?2) > 0"
            " OR instr(f.folded, ?2) > 0) ORDER BY a.id LIMIT ?4 OFFSET ?5"
        )
        return self._users(db, where, (account, fold(part), after, size, skip))

    @reads()
    def blocked(
        self, db: sqlite3.Connection, account: int, after: int, skip: int, size: int
    ) -> list[UserOut]:
        """List whom the caller blocks, by rising id."""
        where = (
            "a.id IN (SELECT blocked FROM block WHERE account = ?1) AND a.id > ?2"
            " ORDER BY a.id LIMIT ?3 OFFSET ?4"
        )
        return self._users(db, where, (account, after, size, skip))

    @reads()
    def user(self, db: sqlite3.Connection, viewer: int, user: int) -> UserOut:
        """Give one user as the viewer may see them; raises Refusal 6004."""
        users = self._users(db, "a.id = ?2 AND a.phone IS NOT NULL", (viewer, user))
        if not users:
            raise Refusal(Status.NULL_USER, field="userId")
        return users[0]

    @reads()
    def requests(
        self, db: sqlite3.Connection, account: int, before: tuple[int, int], skip: int, size: int
    ) -> list[tuple[RequestOut, int, int]]:
        """List the requests that wait, newest first, each with its time and asker as the key."""
        rows = db.execute(
            "SELECT asker, description, created FROM friend_request WHERE account = ?1"
            " AND (created, asker) < (?2, ?3) ORDER BY created DESC, asker DESC LIMIT ?4 OFFSET ?5",
            (account, *before, size, skip),
        ).fetchall()
        listed = []
        for asker, description, created in rows:
            users = self._users(db, "a.id = ?2", (account, asker))
            date = self.dates.text(created)
            listed.append((RequestOut(users[0], description, date), created, asker))
        return listed

    @reads()
    def ids(self, db: sqlite3.Connection, account: int) -> list[int]:
        """Give the numbers of all friends."""
        query = "SELECT friend FROM friendship WHERE account = ?"
        return [row[0] for row in db.execute(query, (account,))]

    @reads()
    def presence(
        self, db: sqlite3.Connection, account: int, users: Sequence[int]
    ) -> dict[int, tuple[bool, int]]:
        """Give, for those of the users who are friends, whether they show it and when last seen."""
        marks = ",".join("?" * len(users))
        query = (
            "SELECT a.id, a.show_presence, a.last_seen FROM friendship f JOIN account a"
            f" ON a.id = f.friend WHERE f.account = ? AND f.friend IN ({marks})"
        )
        rows = db.execute(query, (account, *users))
        return {row[0]: (bool(row[1]), row[2]) for row in rows}

    @reads()
    def may_signal(self, db: sqlite3.Connection, account: int, to: int) -> bool:
        """Tell whether one may show somebody that one is typing: a friend who does not block."""
        query = (
            "SELECT EXISTS (SELECT 1 FROM friendship WHERE account = ?1 AND friend = ?2)"
            " AND NOT EXISTS (SELECT 1 FROM block WHERE account = ?2 AND blocked = ?1)"
        )
        return bool(db.execute(query, (account, to)).fetchone()[0])

    def _users(
        self, db: sqlite3.Connection, where: str, values: tuple[int | str, ...]
    ) -> list[UserOut]:
        rows = db.execute(f"{USER} WHERE {where}", values)
        viewer = int(values[0])
        return [user_out(row, viewer, self.dates.text(row[9])) for row in rows]


def _known(journal: Journal, account: int, user: int) -> bool:
    """Tell whether two people are friends; raises Refusal 6004 for an unknown user."""
    route = journal.route(account, user)
    if route is None:
        raise Refusal(Status.NULL_USER, field="userId")
    return route.friends


def _friend(journal: Journal, account: int, user: int) -> None:
    if not _known(journal, account, user):
        raise Refusal(Status.NOT_ALLOWED, "this user is not your friend", field="userId")
