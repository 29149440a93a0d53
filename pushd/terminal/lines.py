"""Messages and events as lines for people, with the names that those have.

Everything that comes from others is escaped here, once. Names are asked for when they are first
wanted, and a bounded number of them is kept; so are the files that were shown, by message.
"""

import re
import time
from pathlib import PurePosixPath
from typing import Any, TypeVar

from ..client import Client, ClientError, CommandError, Info, Message
from .console import escape

T = TypeVar("T")
Row = dict[str, Any]

CATEGORIES = {"1": "picture", "2": "voice", "3": "file"}
# What is said of types that are more than talk.
SPEECH = {"4": " announces", "5": " sets a task"}
# What a group may change, in words.
CHANGES = {"name": "name", "desc": "description", "notice": "notice", "avatar": "picture"}
# How many names are remembered, and messages with files.
MAX_NAMES = 1000
MAX_FILES = 1000
# How much of the hash that a file is called by stands in its local name.
STEM = 12


def local_name(path: str) -> str:
    """Make a name for a local file of a server's path, whatever that is: no folder, no dot file."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", PurePosixPath(path).name).strip(".")
    stem, dot, ending = name.partition(".")
    return f"{stem[:STEM] or 'file'}{dot}{ending[:STEM]}"


def is_called(row: Row, who: str) -> bool:
    """Whether a user or group has this id, name, alias or phone."""
    if row.get("id") == who or row.get("phone") == who:
        return True
    names = (row.get("alias"), row.get("username"), row.get("name"))
    return who.casefold() in {name.casefold() for name in names if name}


def is_pair(chat_id: str) -> bool:
    """Whether this is the chat of two people."""
    first, dash, second = chat_id.partition("-")
    return bool(dash) and first.isdigit() and second.isdigit()


class Lines:
    """Turns what a client gets into lines, and knows what users and groups are called."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._names: dict[str, str] = {}  # user and group ids to what people call them, escaped
        self._files: dict[str, tuple[str, ...]] = {}  # paths in messages that were shown

    # Names

    def remember(self, row: Row) -> str:
        """Keep what a user or group is called, and give it escaped."""
        name = row.get("alias") or row.get("username") or row.get("name") or row["id"]
        _keep(self._names, row["id"], escape(name), MAX_NAMES)
        return self._names[row["id"]]

    def describe(self, row: Row) -> str:
        """Give name and id of a user or group, escaped."""
        name = self.remember(row)
        also = row.get("username") if row.get("alias") else ""
        return f"{name} ({escape(row['id'])}{', ' + escape(also) if also else ''})"

    async def user(self, user_id: str) -> str:
        """Give the name of a user, escaped; the id if there is none."""
        if user_id not in self._names:
            try:
                account = await self._client.command("account", userId=user_id)
                return self.remember(account["user"])
            except (ClientError, KeyError, TypeError):
                return escape(user_id)
        return self._names[user_id]

    async def group(self, group_id: str) -> str:
        """Give the name of a group, escaped; the id if it is none of one's own."""
        if group_id not in self._names:
            try:
                async for page in self._client.pages("my_groups", size=100):
                    for row in page:
                        self.remember(row)
            except CommandError:
                pass  # A server without groups.
            except (ClientError, KeyError, TypeError):
                return escape(group_id)
            # One that is not there is not asked for again.
            if group_id not in self._names:
                _keep(self._names, group_id, escape(group_id), MAX_NAMES)
        return self._names[group_id]

    # Files

    def files(self, msg_id: str) -> tuple[str, ...]:
        """Give the paths of the files in a message that was shown."""
        return self._files.get(msg_id, ())

    def sent(self, msg_id: str, path: str) -> None:
        """Remember a file that was sent from here."""
        _keep(self._files, msg_id, (path,), MAX_FILES)

    # Messages

    async def of(self, message: Message) -> str:
        """Give the line of a message: time, who, where, what."""
        paths = tuple(info.content for info in message.infos if info.category in CATEGORIES)
        if paths and not message.recalled:
            _keep(self._files, message.msg_id, paths, MAX_FILES)
        clock = time.strftime("[%H:%M]", time.localtime(message.time / 1000))
        return f"{clock} {await self._event(message) or await self._talk(message)}"

    async def _talk(self, message: Message) -> str:
        text = "(recalled)" if message.recalled else _content(message)
        grouped = message.chat_id not in ("", "system") and not is_pair(message.chat_id)
        place = await self.group(message.chat_id) if grouped else ""
        if message.type == "0":
            return f"* in {place}: {text}" if place else f"* {text}"
        where = f" in {place}" if place else ""
        if not place and message.from_id == self._client.user_id:
            where = f" to {await self.user(message.to_id)}"
        sender = await self.user(message.from_id)
        return f"{sender}{where}{SPEECH.get(message.type, '')}: {text}"

    async def _event(self, message: Message) -> str:
        """Tell an event in other words than the server's, where those do not say enough."""
        event = message.event or {}
        match event.get("name"):
            case "friend_request":
                return await self._friend_request(message, event)
            case "join_request":
                return await self._join_request(event)
            case "group_updated":
                return await self._group_updated(event)
            case "recalled":
                return await self._recalled(event)
        return ""

    async def _friend_request(self, message: Message, event: Row) -> str:
        wish = escape(_said(event, "description") or message.text)
        if message.from_id == self._client.user_id:
            return f"* you asked {await self.user(message.to_id)} to be friends: {wish}"
        name = await self.user(message.from_id)
        return f"* {name} asks to be your friend: {wish} (/accept {escape(message.from_id)})"

    async def _join_request(self, event: Row) -> str:
        user_id, group_id = _said(event, "userId"), _said(event, "groupId")
        user, group = await self.user(user_id), await self.group(group_id)
        wish = _said(event, "description")
        wish = f": {escape(wish)}" if wish else ""
        answer = f"(/accept {escape(group_id)} {escape(user_id)})"
        return f"* {user} asks to join {group}{wish} {answer}"

    async def _group_updated(self, event: Row) -> str:
        changed = event.get("changed")
        group_id, changes = _said(event, "groupId"), changed if isinstance(changed, dict) else {}
        by, group = await self.user(_said(event, "by")), await self.group(group_id)
        parts = [
            f"{word} {escape(_said(changes, key)) or '(none)'}"
            for key, word in CHANGES.items()
            if key in changes
        ]
        if "muteAll" in changes:
            who = "owner and admins" if changes["muteAll"] else "all"
            parts.append(f"{who} may write")
        if name := _said(changes, "name"):
            self.remember({"id": group_id, "name": name})
        return f"* {by} changed {group}: {', '.join(parts)}"

    async def _recalled(self, event: Row) -> str:
        by, chat_id = await self.user(_said(event, "by")), _said(event, "chatId")
        where = "" if is_pair(chat_id) else f" in {await self.group(chat_id)}"
        return f"* {by} took back message {escape(_said(event, 'msgId'))}{where}"


def _said(event: Row, key: str) -> str:
    value = event.get(key)
    return value if isinstance(value, str) else ""


def _content(message: Message) -> str:
    return " ".join(_part(info, message.msg_id) for info in message.infos)


def _part(info: Info, msg_id: str) -> str:
    kind = CATEGORIES.get(info.category)
    if kind is None:
        return escape(info.content)
    return f"[{kind} {local_name(info.content)}, /get {escape(msg_id)}]"


def _keep(table: dict[str, T], key: str, value: T, most: int) -> None:
    """Put something into a table, whose oldest entry makes room."""
    table[key] = value
    if len(table) > most:
        del table[next(iter(table))]
