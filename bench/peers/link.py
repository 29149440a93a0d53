"""A connection to a peer: a handshake of bytes that are waited for, then counting.

The classes of `bench.load` do the sending in windows, the waiting and the measuring; what differs
is how a peer's confirmations and deliveries are told apart in the bytes that come: `count`.
"""

import asyncio
from typing import Any

from ..load import Receiver, Sender, Tally

# The text of every message: 60 bytes that stand in nothing else.
BODY = b"PEER: the last train leaves at ten past six from platform 4!"
assert len(BODY) == 60

USER, PASSWORD = b"bench", b"secret-password"

PATIENCE = 60.0  # seconds for any answer of a handshake


class Link(Tally):
    """Bytes in place of lines; what has come and is not taken yet is in `rest`."""

    def __init__(self, mark: bytes = b"", each: int = 1) -> None:
        super().__init__(mark, each)
        self.rest = b""
        self._begun = False
        self._wanted: bytes | int = 0
        self._more: asyncio.Future[Any] | None = None

    async def until(self, pattern: bytes | int) -> bytes:
        """Take the bytes up to the end of a pattern, or so many, and return them."""
        if (end := self._find(pattern)) < 0:
            self._wanted, self._more = pattern, self.expect()
            async with asyncio.timeout(PATIENCE):
                await self._more
            end = self._find(pattern)
        taken, self.rest = self.rest[:end], self.rest[end:]
        return taken

    def begin(self) -> None:
        """Count from now on."""
        self._begun = True
        self.data_received(b"")

    def pause(self) -> None:
        """Go back to taking what is waited for."""
        self._begun = False

    def count(self) -> int:
        """Take what is complete from `rest`, answer it if need be, return how much counts."""
        self.rest = b""
        return 0

    def data_received(self, data: bytes) -> None:
        """Count, or see whether what is waited for is there."""
        self.rest += data
        if self._begun:
            found = self.count()
            if found:
                self.add(found)
        elif self._more is not None and self._find(self._wanted) >= 0:
            if not self._more.done():
                self._more.set_result(None)
            self._more = None

    def count_marks(self, mark: bytes) -> int:
        """Count a mark, keeping back what may be the beginning of one."""
        found = self.rest.count(mark)
        kept = len(mark) - 1
        self.rest = self.rest[-kept:] if kept else b""
        return found

    def _find(self, pattern: bytes | int) -> int:
        if isinstance(pattern, int):
            return pattern if len(self.rest) >= pattern else -1
        at = self.rest.find(pattern)
        return at + len(pattern) if at >= 0 else -1


class LinkSender(Sender, Link):
    """Sends the same frame again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.frame = b""

    def send_lists(self, count: int) -> None:
        """Send so many messages in one write."""
        self.sent += count
        self.write(self.frame * count)


class LinkReceiver(Receiver, Link):
    """Acks what it counts."""

    async def fence(self) -> None:
        """Return at once: peers have nothing that tells when acks are applied."""


class LinkMember(Link):
    """Counts what a group gets."""

    def count(self) -> int:
        """Count texts."""
        return self.count_marks(BODY)
