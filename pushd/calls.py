"""The commands of the contract as methods, for a client to inherit.

Each method is one command; those that are missing here are reached by `command`. It must not
know how a request gets to the server.
"""

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from .inbox import Message
from .link import Frame, result_of

_decode_messages = msgspec.json.Decoder(list[Message]).decode


def given(**fields: Any) -> dict[str, Any]:
    """Keep the fields that say something."""
    return {name: value for name, value in fields.items() if value}


class Calls:
    """Commands; whoever inherits this provides `_call`."""

    async def _call(self, cmd: str, fields: dict[str, Any]) -> Frame:
        raise NotImplementedError

    async def command(self, cmd: str, **fields: Any) -> Any:
        """Call a command and return its result.

        While disconnected it waits. An empty search is an empty list.

        Raises: CommandError if refused; BadReply; Disconnected if the connection broke after it
        was sent.
        """
        return result_of(await self._call(cmd, fields))

    async def pages(self, cmd: str, **fields: Any) -> AsyncIterator[list[Any]]:
        """Yield the pages of a list command, each a list, until there are no more."""
        key = "page"
        if cmd == "history":
            key = "after" if fields.get("after") else "before"
        while True:
            frame = await self._call(cmd, fields)
            yield result_of(frame)
            if not frame.next:
                return
            fields[key] = frame.next

    async def ping(self, text: str = "") -> str:
        """Send `text` there and back; the acks before it are committed then."""
        result = await self._object("ping", **given(text=text))
        return str(result.get("text", ""))

    async def friends(self, field: str = "", page: int | str = 0) -> list[dict[str, Any]]:
        """Return a page of friends, filtered by name or alias."""
        return await self._list("friends", page=page, **given(field=field))

    async def add_friend(self, user_id: str, description: str = "") -> dict[str, Any]:
        """Ask a user to be friends, and return their account."""
        return await self._object("add_friend", userId=user_id, **given(description=description))

    async def accept_friend(self, user_id: str) -> dict[str, Any]:
        """Become friends with a user who has asked."""
        return await self._object("accept_friend", userId=user_id)

    async def search(
        self, username: str = "", *, phone: str = "", page: int | str = 0
    ) -> list[dict[str, Any]]:
        """Return a page of users whose name contains `username`, or the one with that phone."""
        return await self._list("search", page=page, **given(username=username, phone=phone))

    async def chats(self, page: int | str = 0) -> list[dict[str, Any]]:
        """Return a page of chats, newest first."""
        return await self._list("chats", page=page)

    async def history(
        self,
        chat_id: str = "",
        *,
        user_id: str = "",
        before: str = "",
        after: str = "",
        limit: int = 0,
    ) -> list[Message]:
        """Return messages of a chat, oldest first; the newest without `before` or `after`."""
        fields = given(chatId=chat_id, userId=user_id, before=before, after=after, limit=limit)
        return result_of(await self._call("history", fields), _decode_messages)

    async def search_messages(
        self, text: str, chat_id: str = "", page: int | str = 0
    ) -> list[Message]:
        """Return a page of messages that contain `text`, newest first."""
        fields = {"text": text, "page": page, **given(chatId=chat_id)}
        return result_of(await self._call("search_messages", fields), _decode_messages)

    async def recall(self, msg_id: str) -> None:
        """Take back one's own message."""
        await self.command("recall", msgId=msg_id)

    async def _object(self, cmd: str, **fields: Any) -> dict[str, Any]:
        result = await self.command(cmd, **fields)
        return result if isinstance(result, dict) else {}

    async def _list(self, cmd: str, **fields: Any) -> list[dict[str, Any]]:
        result = await self.command(cmd, **fields)
        return result if isinstance(result, list) else []
