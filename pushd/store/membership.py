"""Groups as the writer's thread knows them: who is in, with which role, and what they may say.

A group's id is its chatId: `g` and a number. The cache mirrors the tables and is emptied by any
rollback. A verb that changes a group changes both, so that rights bite from the next operation on.
"""

import sqlite3
from collections.abc import Iterable

from ..encoding import encode
from ..errors import Refusal
from ..model import MessageType
from ..names import fold
from ..status import Status

OWNER, ADMIN, MEMBER = "owner", "admin", "member"
RANK = {MEMBER: 0, ADMIN: 1, OWNER: 2}
# Which type of message goes to which kind; announcements and tasks go to all.
KIND_OF_TYPE = {MessageType.TOPIC: "tag", MessageType.LINK: "link", MessageType.GROUP: "group"}


class Member:
    """One who is in a group now."""

    __slots__ = ("muted_until", "role")

    def __init__(self, role: str, muted_until: int) -> None:
        self.role = role
        self.muted_until = muted_until  # ms


class Group:
    """A group that is not dissolved."""

    __slots__ = ("chat", "key", "kind", "members", "mute_all", "name")

    def __init__(self, chat: int, key: str, kind: str, name: str, mute_all: bool) -> None:
        self.chat = chat
        self.key = key
        self.kind = kind  # group, tag, link
        self.name = name
        self.mute_all = mute_all  # only owner and admins may speak
        self.members: dict[int, Member] = {}

    def rank(self, account: int) -> int:
        """Give how much somebody may do: 2 for the owner; -1 for one who is not in."""
        member = self.members.get(account)
        return -1 if member is None else RANK[member.role]

    def check_speech(self, account: int, kind: int, now: int) -> None:
        """Refuse a message of a type that somebody may not send here."""
        member = self.members[account]
        wanted = KIND_OF_TYPE.get(kind)
        if wanted is not None and wanted != self.kind:
            raise Refusal(Status.NOT_ALLOWED, f"this type goes to a {wanted}", field="type")
        leads = member.role != MEMBER
        if kind == MessageType.ANNOUNCEMENT and not leads:
            raise Refusal(Status.NOT_ALLOWED, "only owner and admins announce", field="type")
        if self.mute_all and not leads:
            raise Refusal(Status.NOT_ALLOWED, "only owner and admins may write", field="chatId")
        if member.muted_until > now:
            raise Refusal(Status.NOT_ALLOWED, "you are muted here", field="chatId")


class Groups:
    """The cache of groups; bounded by `most` groups and ten times as many members."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._groups: dict[str, Group] = {}
        self._grown = False  # a group was loaded since the bound was looked at

    def find(self, db: sqlite3.Connection, key: str) -> Group | None:
        """Give a group by its id; None if there is none, or it was dissolved."""
        group = self._groups.get(key)
        if group is None and key.startswith("g"):
            group = _load(db, key)
            if group is not None:
                self._groups[key] = group
                self._grown = True
        return group

    def ended(self, db: sqlite3.Connection, key: str) -> Group | None:
        """Give a group that was dissolved, in which nobody is; it is not kept."""
        query = (
            "SELECT c.id, c.key, c.kind, g.name, g.mute_all FROM chat c JOIN groups g"
            " ON g.chat = c.id WHERE c.key = ? AND g.dissolved"
        )
        row = db.execute(query, (key,)).fetchone()
        return Group(*row) if row is not None else None

    def forget(self, key: str) -> None:
        """Forget one group."""
        self._groups.pop(key, None)

    def clear(self) -> None:
        """Forget all."""
        self._groups.clear()

    def trim(self) -> None:
        """Keep within the bound; the oldest go."""
        if not self._grown:
            return
        self._grown = False
        members = sum(len(group.members) for group in self._groups.values())
        while len(self._groups) > self._most or (
            len(self._groups) > 1 and members > 10 * self._most
        ):
            members -= len(self._groups.pop(next(iter(self._groups))).members)


def _load(db: sqlite3.Connection, key: str) -> Group | None:
    row = db.execute(
        "SELECT c.id, c.kind, g.name, g.mute_all FROM chat c JOIN groups g ON g.chat = c.id"
        " WHERE c.key = ? AND NOT g.dissolved",
        (key,),
    ).fetchone()
    if row is None:
        return None
    group = Group(row[0], key, row[1], row[2], bool(row[3]))
    members = "SELECT account, role, muted_until FROM member WHERE chat = ? AND final IS NULL"
    for account, role, muted_until in db.execute(f"{members} ORDER BY joined, account", (row[0],)):
        group.members[account] = Member(role, muted_until)
    return group


def notice_body(key: str, text: str, event: dict[str, object]) -> tuple[str, str]:
    """Give body and search text of a message of the server's own to a group."""
    content = encode(text).decode()
    body = (
        f'"chatId":"{key}","fromId":"","toId":"{key}","type":"0",'
        f'"info":[{{"category":"0","content":{content}}}],"event":{encode(event).decode()}'
    )
    return body, fold(text)


def ids(accounts: Iterable[int]) -> list[str]:
    """Give user ids as they stand on the wire."""
    return [str(account) for account in accounts]
