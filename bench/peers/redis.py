"""Redis: a stream for each receiver, read by a group and acked (RESP 2)."""

import re

from ..load import Connection, Receiver, Sender
from .link import BODY, PASSWORD, USER, Link, LinkMember, LinkReceiver, LinkSender
from .peer import Peer, Some

# In a reply the id of each entry is a bulk string of its own.
_ENTRY = re.compile(rb"\$\d+\r\n(\d+-\d+)\r\n")
_MOST = b"500"  # entries of one read


def command(*words: bytes) -> bytes:
    """Write a command."""
    head = b"*%d\r\n" % len(words)
    return head + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


class _Sender(LinkSender):
    def count(self) -> int:
        """Each entry that was added is answered by its id, a bulk string."""
        return self.count_marks(b"$")


class _Receiver(LinkReceiver):
    key = b""
    read = b""

    def count(self) -> int:
        """A read is answered whole: ack its entries, then read on."""
        if self.rest.startswith(b":"):  # how many the last ack took
            _, end, rest = self.rest.partition(b"\r\n")
            if not end:
                return 0
            self.rest = rest
        # *1, *2, the length of the key, the key, how many entries
        head = self.rest.split(b"\r\n", 5)
        if len(head) < 6:
            return 0
        found, wanted = self.rest.count(BODY), int(head[4][1:])
        if found < wanted or not self.rest.endswith(b"\r\n"):
            return 0
        self.write(command(b"XACK", self.key, b"g", *_ENTRY.findall(self.rest)) + self.read)
        self.rest = b""
        return found


class Redis(Peer):
    """Streams, with an append-only file that is synced before each answer."""

    port = 6390

    async def sender(self, user: int, to: int) -> Sender:
        """Connect somebody who adds to the stream of `to`."""
        made = await self._log_in(_Sender())
        made.frame = command(b"XADD", _key(to), b"*", b"t", BODY)
        made.begin()
        return made

    async def receiver(self, user: int) -> Receiver:
        """Read a stream as the one member of its group."""
        made = await self._log_in(_Receiver())
        made.key = key = _key(user)
        made.write(command(b"XGROUP", b"CREATE", key, b"g", b"0", b"MKSTREAM"))
        await made.until(b"\r\n")
        made.read = command(
            *(b"XREADGROUP", b"GROUP", b"g", b"d", b"COUNT", _MOST, b"BLOCK", b"0"),
            *(b"STREAMS", key, b">"),
        )
        made.write(made.read)
        made.begin()
        return made

    async def idle(self, user: int) -> Connection:
        """Log in."""
        return await self._log_in(Link())

    async def member(self, user: int) -> Link:
        """Subscribe to a channel, which stores nothing."""
        made = await self._log_in(LinkMember())
        made.write(command(b"SUBSCRIBE", b"all"))
        await made.until(b":1\r\n")
        return made

    async def writer(self, user: int) -> tuple[Link, bytes]:
        """Publish to that channel."""
        return await self._log_in(Link()), command(b"PUBLISH", b"all", BODY)

    async def _log_in(self, made: Some) -> Some:
        await self.dial(made)
        made.write(command(b"AUTH", USER, PASSWORD))
        await made.until(b"+OK\r\n")
        return made


def _key(user: int) -> bytes:
    return b"s:%05d" % user
