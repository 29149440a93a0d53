"""Delivered messages on their way to one consumer, in a client.

A message is in one of three states: waiting, in the consumer's hands, or handled. It counts as
handled when the consumer asks for the next one, and only then is it acked. When a connection
follows another, what waits is thrown away, and so is the right to ack what is in hand: the
server sends both again, and what the consumer has had is known by its `msgId`.

It must not know what a connection is; acking is a function it was given.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

# Must hold more ids than can be unacked, for only those can come again.
MAX_SEEN = 8192


class Info(msgspec.Struct, frozen=True):
    """One part of a message: "0" text, "1" picture, "2" voice, "3" file (a media path)."""

    category: str = "0"
    content: str = ""

    def __repr__(self) -> str:
        return f"Info(category={self.category!r})"


class Message(msgspec.Struct, frozen=True, rename="camel"):
    """A message as the server delivered it; `time` is in milliseconds since 1970."""

    chat_id: str = ""
    from_id: str = ""
    to_id: str = ""
    type: str = ""
    infos: tuple[Info, ...] = msgspec.field(default=(), name="info")
    create_time: str = ""
    msg_id: str = ""
    seq: int = 0
    time: int = 0
    client_id: str = ""
    event: dict[str, Any] | None = None
    recalled: bool = False
    reply_to: str = ""
    mentions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The text parts, one a line."""
        return "\n".join(info.content for info in self.infos if info.category == "0")

    def __repr__(self) -> str:
        return f"Message(msg_id={self.msg_id!r}, chat_id={self.chat_id!r}, seq={self.seq})"


class Inbox:
    """A queue of messages for one consumer; `ack` is told the seq of what was handled."""

    def __init__(self, ack: Callable[[int], None]) -> None:
        self._ack = ack
        self._waiting: deque[Message] = deque()
        self._seen: dict[str, None] = {}  # ids handed out, oldest first
        self._current = 0  # seq of the message in the consumer's hands, 0 if not ackable
        self._asking = False  # the consumer is in `take`
        self._arrived = asyncio.Event()
        self.ended = False  # nothing comes any more

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, messages: list[Message]) -> None:
        """Add messages that were delivered."""
        if not self.ended:
            self._waiting.extend(messages)
            self._arrived.set()

    def drop(self) -> None:
        """Forget what its connection cannot ack any more; the next one brings it again."""
        self._waiting.clear()
        self._current = 0

    def forget(self) -> None:
        """Forget which messages were seen: their ids may mean others from now on."""
        self.drop()
        self._seen.clear()

    def end(self) -> None:
        """Let the consumer finish."""
        self.drop()
        self.ended = True
        self._arrived.set()

    async def take(self) -> Message | None:
        """Give the next message, or None at the end; the one before it is handled.

        Raises: RuntimeError for a second consumer at the same time.
        """
        if self._asking:
            raise RuntimeError("only one consumer at a time can read messages()")
        self._asking = True
        try:
            self._finish_current()
            while (message := self._next_unseen()) is None and not self.ended:
                self._arrived.clear()
                await self._arrived.wait()
            return message
        finally:
            self._asking = False

    def _finish_current(self) -> None:
        seq, self._current = self._current, 0
        if seq:
            self._ack(seq)

    def _next_unseen(self) -> Message | None:
        while self._waiting:
            message = self._waiting.popleft()
            # A gap may have no msgId.
            key = message.msg_id or f"seq {message.seq}"
            if key in self._seen:
                self._ack(message.seq)
                continue
            if len(self._seen) >= MAX_SEEN:
                del self._seen[next(iter(self._seen))]
            self._seen[key] = None
            self._current = message.seq
            return message
        return None
