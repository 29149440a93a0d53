"""Groups: making, joining, leaving, leading and ending them.

Each change is one verb, so it bites at one point in commit order; all who are in a group see it
as a message of the server's own, in the group's order. A group always has exactly one owner.
"""

import secrets
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from ..encoding import encode
from ..errors import Refusal
from ..model import Actor, GroupOut, MemberOut, RequestOut, UserOut
from ..names import fold
from ..status import Status
from . import requests
from .accounts import USER, user_out
from .journal import Journal
from .membership import ADMIN, MEMBER, OWNER, RANK, Group, Member, ids
from .noun import Noun, reads, writes
from .records import message_body, pair_key, text_infos
from .references import check_picture

# A group as ?1 sees it; the role and the bounds come from the viewer's row.
GROUP = (
    "SELECT c.id, c.key, g.name, c.kind, g.desc, g.avatar, g.notice, coalesce((SELECT account FROM"
    " member WHERE chat = c.id AND role = 'owner' AND final IS NULL), 0), iif(b.final IS NULL,"
    " coalesce(b.role, ''), ''), (SELECT count(*) FROM member WHERE chat = c.id AND final IS NULL),"
    " g.mute_all, g.modified, g.code FROM groups g JOIN chat c ON c.id = g.chat"
    " LEFT JOIN member b ON b.chat = c.id AND b.account = ?1"
)
# What update_group may change, with its column.
COLUMNS = ("name", "desc", "avatar", "notice", "mute_all")


class GroupVerbs(Noun):
    """The verbs of groups."""

    most_members = 5000

    # --- making and ending ----------------------------------------------------------------

    @writes()
    def create(
        self,
        journal: Journal,
        actor: Actor,
        name: str,
        kind: str,
        friends: Sequence[int],
        profile: dict[str, str],
    ) -> str:
        """Make a group with the caller as owner and some of their friends; gives its id."""
        account = actor.account
        if "avatar" in profile:
            check_picture(journal, account, profile["avatar"])
        others = [user for user in dict.fromkeys(friends) if user != account]
        self._check_friends(journal, account, others, "userIds")
        if len(others) + 1 > self.most_members:
            raise Refusal(Status.LIMIT_REACHED, f"a group has at most {self.most_members} members")
        db = journal.db
        add = "INSERT INTO chat (key, kind) VALUES (?, ?) RETURNING id"
        chat: int = db.execute(add, (secrets.token_hex(8), kind)).fetchone()[0]
        key = f"g{chat}"
        db.execute("UPDATE chat SET key = ? WHERE id = ?", (key, chat))
        code = secrets.token_urlsafe(9) if kind == "link" else None
        db.execute(
            "INSERT INTO groups (chat, name, folded, desc, avatar, code, created, modified)"
            " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)",
            (
                chat,
                name,
                fold(name),
                profile.get("desc", ""),
                profile.get("avatar", ""),
                code,
                journal.now,
            ),
        )
        group = Group(chat, key, kind, name, False)
        self._enter(journal, group, [account], OWNER)
        self._enter(journal, group, others, MEMBER)
        self._tell_joined(journal, group, [account, *others], account)
        return key

    @writes()
    def dissolve(self, journal: Journal, actor: Actor, key: str) -> None:
        """End a group of the caller's; all who were in are told."""
        group = _led(journal, actor.account, key, 2)
        event: dict[str, object] = {"name": "dissolved", "groupId": key}
        number = journal.group_notice(group, f"{group.name} was dissolved.", event)
        close_group(journal, group, number)

    # --- coming and going -----------------------------------------------------------------

    @writes()
    def join(self, journal: Journal, actor: Actor, key: str, code: str, description: str) -> str:
        """Join a tag, or a link by its code; ask the leaders of a group. Gives the group's id.

        Raises Refusal 4005 for an unknown group or code.
        """
        account = actor.account
        group = _by_code(journal, code) if code else journal.groups.find(journal.db, key)
        if group is None or (group.kind == "link" and not code):
            if group is not None and account in group.members:
                return group.key
            raise Refusal(Status.NOT_FOUND, "no such group", field="code" if code else "groupId")
        if account in group.members:
            return group.key
        if group.kind == "group":
            self._ask(journal, group, account, description)
            return group.key
        self._check_room(group, 1)
        self._enter(journal, group, [account], MEMBER)
        self._tell_joined(journal, group, [account], account)
        return group.key

    @writes()
    def accept(self, journal: Journal, actor: Actor, key: str, user: int) -> None:
        """Let somebody in who asked; a second time changes nothing for one who is in.

        Raises Refusal 4005 without a request.
        """
        group = _led(journal, actor.account, key, 1)
        if user in group.members:
            return
        _take_request(journal, group, user)
        self._check_room(group, 1)
        self._enter(journal, group, [user], MEMBER)
        self._tell_joined(journal, group, [user], actor.account)

    @writes(grows=False)
    def reject(self, journal: Journal, actor: Actor, key: str, user: int) -> None:
        """Refuse somebody who asked; raises Refusal 4005 without a request."""
        group = _led(journal, actor.account, key, 1)
        _take_request(journal, group, user)

    @writes()
    def invite(self, journal: Journal, actor: Actor, key: str, users: Sequence[int]) -> None:
        """Bring friends of the caller's into a group; those who are in stay as they are."""
        group = _led(journal, actor.account, key, 0)
        fresh = [user for user in dict.fromkeys(users) if user not in group.members]
        self._check_friends(journal, actor.account, fresh, "userIds")
        self._check_room(group, len(fresh))
        if fresh:
            self._enter(journal, group, fresh, MEMBER)
            self._tell_joined(journal, group, fresh, actor.account)

    @writes()
    def kick(self, journal: Journal, actor: Actor, key: str, users: Sequence[int]) -> None:
        """Put people out who are below the caller; raises 4005 for one who is not in."""
        account = actor.account
        group = _led(journal, account, key, 1)
        for user in users:
            _check_inside(journal, group, user, "userIds")
            if group.rank(user) >= group.rank(account):
                raise Refusal(Status.NOT_ALLOWED, f"you may not kick {user}", field="userIds")
        gone = list(dict.fromkeys(users))
        event: dict[str, object] = {"name": "kicked", "groupId": key, "userIds": ids(gone)}
        event["by"] = str(account)
        number = journal.group_notice(group, f"{_names(journal, gone)} was removed.", event)
        _leave(journal, group, gone, number)

    @writes()
    def leave(self, journal: Journal, actor: Actor, key: str) -> None:
        """Leave a group; raises Refusal 4004 for its owner."""
        account = actor.account
        group = _led(journal, account, key, 0)
        if group.rank(account) == RANK[OWNER]:
            raise Refusal(Status.NOT_ALLOWED, "hand the group over or dissolve it", field="groupId")
        tell_left(journal, group, account)

    # --- leading --------------------------------------------------------------------------

    @writes()
    def set_role(self, journal: Journal, actor: Actor, key: str, user: int, role: str) -> None:
        """Make somebody owner, admin or member; an owner who hands over becomes an admin."""
        account = actor.account
        group = _led(journal, account, key, 2)
        _check_inside(journal, group, user, "userId")
        if user == account:
            raise Refusal(Status.NOT_ALLOWED, "hand the group over to another", field="userId")
        if group.members[user].role == role:
            return
        if role == OWNER:
            _set_role(journal, group, account, ADMIN)
        _set_role(journal, group, user, role)
        event: dict[str, object] = {"name": "role", "groupId": key, "userId": str(user)}
        event |= {"role": role, "by": str(account)}
        journal.group_notice(group, f"{_names(journal, [user])} is {role} now.", event)

    @writes()
    def update(
        self, journal: Journal, actor: Actor, key: str, changes: dict[str, str | bool]
    ) -> None:
        """Change what is given of name, desc, avatar, notice and mute_all; tells the group."""
        group = _led(journal, actor.account, key, 1)
        if "avatar" in changes:
            check_picture(journal, actor.account, str(changes["avatar"]))
        for column in COLUMNS:
            if column in changes:
                change = f"UPDATE groups SET {column} = ?, modified = ? WHERE chat = ?"
                journal.db.execute(change, (changes[column], journal.now, group.chat))
        if not changes:
            return
        if "name" in changes:
            group.name = str(changes["name"])
            change = "UPDATE groups SET folded = ? WHERE chat = ?"
            journal.db.execute(change, (fold(group.name), group.chat))
        group.mute_all = bool(changes.get("mute_all", group.mute_all))
        shown = {"muteAll" if name == "mute_all" else name: changes[name] for name in changes}
        event = {"name": "group_updated", "groupId": key, "by": str(actor.account)}
        event["changed"] = shown  # type: ignore[assignment]
        journal.group_notice(group, f"{group.name} was changed.", dict(event))

    @writes()
    def mute(self, journal: Journal, actor: Actor, key: str, user: int, seconds: int) -> None:
        """Let somebody below the caller not write for a time; 0 seconds end it."""
        group = _led(journal, actor.account, key, 1)
        _check_inside(journal, group, user, "userId")
        if group.rank(user) >= group.rank(actor.account):
            raise Refusal(Status.NOT_ALLOWED, "you may not mute this user", field="userId")
        until = journal.now + seconds * 1000 if seconds else 0
        group.members[user].muted_until = until
        change = "UPDATE member SET muted_until = ? WHERE chat = ? AND account = ?"
        journal.db.execute(change, (until, group.chat, user))
        event: dict[str, object] = {"name": "muted", "groupId": key, "userId": str(user)}
        event |= {"seconds": seconds, "by": str(actor.account)}
        what = "may not write for now" if seconds else "may write again"
        journal.group_notice(group, f"{_names(journal, [user])} {what}.", event)

    # --- seeing ---------------------------------------------------------------------------

    @reads()
    def seen(self, db: sqlite3.Connection, viewer: int, key: str) -> GroupOut:
        """Give a group as somebody may see it; raises Refusal 4005."""
        found = self._groups(db, "c.key = ?2", (viewer, key))
        if not found:
            raise Refusal(Status.NOT_FOUND, "no such group", field="groupId")
        return found[0]

    @reads()
    def mine(
        self, db: sqlite3.Connection, viewer: int, after: int, skip: int, size: int
    ) -> list[GroupOut]:
        """List the groups that somebody is in, oldest first."""
        where = (
            "b.account IS NOT NULL AND b.final IS NULL AND NOT g.dissolved AND c.id > ?2"
            " ORDER BY c.id LIMIT ?3 OFFSET ?4"
        )
        return self._groups(db, where, (viewer, after, size, skip))

    @reads(long=True)
    def search(
        self, db: sqlite3.Connection, viewer: int, part: str, after: int, skip: int, size: int
    ) -> list[GroupOut]:
        """Find groups and tags whose name holds `part`, folded and literal; never links."""
        where = (
            "c.kind <> 'link' AND NOT g.dissolved AND instr(g.folded, ?2) > 0 AND c.id > ?3"
            " ORDER BY c.id LIMIT ?4 OFFSET ?5"
        )
        return self._groups(db, where, (viewer, fold(part), after, size, skip))

    @reads()
    def members(
        self, db: sqlite3.Connection, viewer: int, key: str, after: int, skip: int, size: int
    ) -> list[MemberOut]:
        """List who is in a group of the viewer's, by rising id; raises Refusal 4005."""
        chat = _chat_of(db, viewer, key)
        rows = db.execute(
            "SELECT account, role, joined, muted_until FROM member WHERE chat = ? AND final IS NULL"
            " AND account > ? ORDER BY account LIMIT ? OFFSET ?",
            (chat, after, size, skip),
        ).fetchall()
        now = self.clock.wall()
        return [
            MemberOut(
                self._user(db, viewer, account),
                role,
                self.dates.text(joined),
                self.dates.text(muted) if muted > now else "",
            )
            for account, role, joined, muted in rows
        ]

    @reads()
    def requests(
        self, db: sqlite3.Connection, viewer: int, key: str, after: int, skip: int, size: int
    ) -> list[RequestOut]:
        """List who asked to join, by rising id; raises Refusal 4005, and 4004 for a member."""
        chat = _chat_of(db, viewer, key)
        query = "SELECT role FROM member WHERE chat = ? AND account = ?"
        if db.execute(query, (chat, viewer)).fetchone()[0] == MEMBER:
            raise Refusal(Status.NOT_ALLOWED, "only owner and admins may do this", field="groupId")
        rows = db.execute(
            "SELECT account, description, created FROM join_request WHERE chat = ? AND account > ?"
            " ORDER BY account LIMIT ? OFFSET ?",
            (chat, after, size, skip),
        ).fetchall()
        return [
            RequestOut(self._user(db, viewer, row[0]), row[1], self.dates.text(row[2]))
            for row in rows
        ]

    @reads()
    def member_ids(self, db: sqlite3.Connection, viewer: int, key: str) -> list[int]:
        """Give who is in a group of the viewer's; raises Refusal 4005."""
        chat = _chat_of(db, viewer, key)
        rows = db.execute("SELECT account FROM member WHERE chat = ? AND final IS NULL", (chat,))
        return [row[0] for row in rows]

    def _groups(
        self, db: sqlite3.Connection, where: str, values: tuple[int | str, ...]
    ) -> list[GroupOut]:
        return [
            group_out(row, self.dates.text(row[11]))
            for row in db.execute(f"{GROUP} WHERE {where}", values)
        ]

    def _user(self, db: sqlite3.Connection, viewer: int, user: int) -> UserOut:
        row = db.execute(f"{USER} WHERE a.id = ?2", (viewer, user)).fetchone()
        return user_out(row, viewer, self.dates.text(row[9]))

    # --- parts of the verbs ---------------------------------------------------------------

    def _check_friends(
        self, journal: Journal, account: int, users: Iterable[int], field: str
    ) -> None:
        for user in users:
            route = journal.route(account, user)
            if route is None:
                raise Refusal(Status.NULL_USER, f"no such user {user}", field=field)
            if not route.friends or route.blocked:
                raise Refusal(Status.NOT_ALLOWED, f"{user} is not your friend", field=field)

    def _check_room(self, group: Group, more: int) -> None:
        if len(group.members) + more > self.most_members:
            raise Refusal(Status.LIMIT_REACHED, f"a group has at most {self.most_members} members")

    def _enter(self, journal: Journal, group: Group, accounts: Iterable[int], role: str) -> None:
        first = journal.next_id - 1
        for account in accounts:
            # Who was muted and left comes back muted: a tag is open to all.
            enter = (
                "INSERT INTO member (chat, account, role, joined, first, read)"
                " VALUES (?1, ?2, ?3, ?4, ?5, ?5) ON CONFLICT (chat, account) DO UPDATE SET"
                " role = ?3, joined = ?4, first = ?5, read = ?5, final = NULL RETURNING muted_until"
            )
            values = (group.chat, account, role, journal.now, first)
            muted_until = journal.db.execute(enter, values).fetchone()[0]
            remove = "DELETE FROM join_request WHERE chat = ? AND account = ?"
            journal.db.execute(remove, (group.chat, account))
            group.members[account] = Member(role, muted_until)

    def _tell_joined(
        self, journal: Journal, group: Group, accounts: Sequence[int], by: int
    ) -> None:
        event: dict[str, object] = {"name": "joined", "groupId": group.key}
        event |= {"userIds": ids(accounts), "by": str(by)}
        names = _names(journal, accounts)
        journal.group_notice(group, f"{names} joined {group.name}.", event)

    def _ask(self, journal: Journal, group: Group, account: int, description: str) -> None:
        """Note that somebody wants to join, and tell owner and admins once."""
        db = journal.db
        query = "SELECT 1 FROM join_request WHERE chat = ? AND account = ?"
        again = db.execute(query, (group.chat, account)).fetchone()
        count = "SELECT count(*) FROM join_request WHERE chat = ?"
        if not again and db.execute(count, (group.chat,)).fetchone()[0] >= self.most_members:
            raise Refusal(Status.LIMIT_REACHED, "too many requests wait for this group")
        db.execute(
            "INSERT INTO join_request VALUES (?1, ?2, ?3, ?4)"
            " ON CONFLICT (chat, account) DO UPDATE SET description = ?3",
            (group.chat, account, description, journal.now),
        )
        if again:
            return
        event = {"name": "join_request", "groupId": group.key, "userId": str(account)}
        event["description"] = description
        text = description or f"I would like to join {group.name}."
        extra = f',"event":{encode(event).decode()}'
        for leader in [user for user in group.members if group.rank(user) > 0]:
            route = journal.route(account, leader)
            if route is None or route.blocked:
                continue
            key = pair_key(account, leader)
            chat = journal.chat(key, "pair", {account, leader})
            body = message_body(key, account, leader, 2, text_infos(text), extra)
            number, rest = journal.store_message(chat, account, body, fold(text))
            box = journal.mailbox(leader)
            if box is not None:
                journal.deliver(box, chat, number, rest)


def group_out(row: Sequence[Any], modified: str) -> GroupOut:
    """Make a group of a row of GROUP; its code is shown to those who are in."""
    made = GroupOut(
        id=row[1],
        name=row[2],
        kind=row[3],
        desc=row[4],
        avatar=row[5],
        notice=row[6] if row[8] else "",
        owner=str(row[7]) if row[7] else "",
        role=row[8],
        members=row[9],
        mute_all=bool(row[10]),
        modify_at=modified,
    )
    if row[12] and row[8]:
        made.code = row[12]
    return made


def tell_left(journal: Journal, group: Group, account: int) -> None:
    """Take somebody out of a group, and tell it."""
    event: dict[str, object] = {"name": "left", "groupId": group.key, "userIds": [str(account)]}
    event["by"] = str(account)
    number = journal.group_notice(group, f"{_names(journal, [account])} left.", event)
    _leave(journal, group, [account], number)


def hand_over(journal: Journal, account: int) -> None:
    """Give the groups that somebody owns to the eldest admin, else the eldest member."""
    query = (
        "SELECT c.key FROM member m JOIN chat c ON c.id = m.chat"
        " WHERE m.account = ? AND m.role = 'owner' AND m.final IS NULL"
    )
    for (key,) in journal.db.execute(query, (account,)).fetchall():
        group = journal.groups.find(journal.db, key)
        if group is None:
            continue
        heir = _heir(journal, group, account)
        if not heir:
            close_group(journal, group, journal.next_id - 1)
            continue
        _set_role(journal, group, account, MEMBER)
        _set_role(journal, group, heir, OWNER)
        event: dict[str, object] = {"name": "role", "groupId": key, "userId": str(heir)}
        event |= {"role": OWNER, "by": ""}
        journal.group_notice(group, f"{_names(journal, [heir])} is owner now.", event)


def _heir(journal: Journal, group: Group, owner: int) -> int:
    """Choose who owns a group next; 0 if nobody else is in it."""
    # The members lie in the order in which they joined.
    heirs = [user for user in group.members if user != owner]
    heirs.sort(key=lambda user: group.members[user].role != ADMIN)
    active = (user for user in heirs if (box := journal.mailbox(user)) and not box.disabled)
    return next(active, heirs[0] if heirs else 0)


def close_group(journal: Journal, group: Group, final: int) -> None:
    """End a group for all who are in; they may read it up to a msgId."""
    db = journal.db
    db.execute("UPDATE groups SET dissolved = 1, code = NULL WHERE chat = ?", (group.chat,))
    db.execute("DELETE FROM join_request WHERE chat = ?", (group.chat,))
    _leave(journal, group, list(group.members), final)
    journal.groups.forget(group.key)


def _led(journal: Journal, account: int, key: str, rank: int) -> Group:
    """Give a group that somebody is in with at least a rank; raises Refusal 4005 or 4004."""
    group = journal.groups.find(journal.db, key)
    if group is None or account not in group.members:
        raise Refusal(Status.NOT_FOUND, "no such group", field="groupId")
    if group.rank(account) < rank:
        who = "the owner" if rank == RANK[OWNER] else "owner and admins"
        raise Refusal(Status.NOT_ALLOWED, f"only {who} may do this", field="groupId")
    return group


def _by_code(journal: Journal, code: str) -> Group | None:
    query = "SELECT c.key FROM groups g JOIN chat c ON c.id = g.chat WHERE g.code = ?"
    found = journal.db.execute(query, (code,)).fetchone()
    return journal.groups.find(journal.db, found[0]) if found else None


def _chat_of(db: sqlite3.Connection, viewer: int, key: str) -> int:
    """Give the number of a group's chat that somebody is in; raises Refusal 4005."""
    query = (
        "SELECT c.id FROM chat c JOIN groups g ON g.chat = c.id JOIN member m ON m.chat = c.id"
        " WHERE c.key = ? AND m.account = ? AND m.final IS NULL"
    )
    found = db.execute(query, (key, viewer)).fetchone()
    if found is None:
        raise Refusal(Status.NOT_FOUND, "no such group", field="groupId")
    return int(found[0])


def _check_inside(journal: Journal, group: Group, user: int, field: str) -> None:
    """Refuse a user who is not in a group: 6004 if there is no such user at all, else 4005."""
    if user in group.members:
        return
    if journal.mailbox(user) is None:
        raise Refusal(Status.NULL_USER, f"no such user {user}", field=field)
    raise Refusal(Status.NOT_FOUND, f"{user} is not in this group", field=field)


def _take_request(journal: Journal, group: Group, user: int) -> None:
    if journal.mailbox(user) is None:
        raise Refusal(Status.NULL_USER, f"no such user {user}", field="userId")
    remove = "DELETE FROM join_request WHERE chat = ? AND account = ?"
    if not journal.db.execute(remove, (group.chat, user)).rowcount:
        raise Refusal(Status.NOT_FOUND, "no such request", field="userId")


def _leave(journal: Journal, group: Group, accounts: Iterable[int], final: int) -> None:
    for account in accounts:
        journal.db.execute(
            "UPDATE member SET final = ?, role = 'member' WHERE chat = ? AND account = ?",
            (final, group.chat, account),
        )
        group.members.pop(account, None)


def _set_role(journal: Journal, group: Group, user: int, role: str) -> None:
    member = group.members[user]
    member.role = role
    if role == OWNER:
        # Nobody could unmute an owner.
        member.muted_until = 0
    change = "UPDATE member SET role = ?, muted_until = ? WHERE chat = ? AND account = ?"
    journal.db.execute(change, (role, member.muted_until, group.chat, user))


def _names(journal: Journal, accounts: Sequence[int]) -> str:
    """Give the names of people for a sentence; of many only the first ones."""
    names = [requests.display_name(journal, account) for account in accounts[:5]]
    if len(accounts) > len(names):
        names.append(f"{len(accounts) - len(names)} more")
    return ", ".join(names)
