"""AMQP 0-9-1: a quorum queue for each receiver, persistent messages, publisher confirms."""

import struct

from ..load import Connection, Receiver, Sender
from .link import BODY, PASSWORD, USER, Link, LinkMember, LinkReceiver, LinkSender
from .peer import Peer, Some

_END = b"\xce"
_CONFIRM_SIZE = 21  # a basic.ack
# basic.deliver, the head of the content, the content: always as long
_DELIVERY_SIZE = 7 + 4 + 2 + 8 + 1 + 1 + 7 + 1 + (7 + 15 + 1) + (7 + len(BODY) + 1)
_TAG_AT = 13
_PREFETCH = 2000


def short(data: bytes) -> bytes:
    """Write a short string."""
    return bytes([len(data)]) + data


def long(data: bytes) -> bytes:
    """Write a long string or a table."""
    return struct.pack(">I", len(data)) + data


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Write a frame."""
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + _END


def method(channel: int, of: int, number: int, arguments: bytes = b"") -> bytes:
    """Write a method."""
    return frame(1, channel, struct.pack(">HH", of, number) + arguments)


def publish(exchange: bytes, key: bytes, mode: int) -> bytes:
    """Write a message; mode 2 is persistent."""
    head = struct.pack(">HHQHB", 60, 0, len(BODY), 0x1000, mode)
    sent = method(1, 60, 40, b"\0\0" + short(exchange) + short(key) + b"\0")
    return sent + frame(2, 1, head) + frame(3, 1, BODY)


class _Sender(LinkSender):
    def __init__(self) -> None:
        super().__init__()
        self._next = 1  # the lowest tag that is not confirmed
        self._ahead: set[int] = set()  # confirmed beyond it

    def count(self) -> int:
        """A confirm stands for one tag, or for all up to it."""
        found = 0
        size = len(self.rest) // _CONFIRM_SIZE * _CONFIRM_SIZE
        for at in range(0, size, _CONFIRM_SIZE):
            tag, multiple = struct.unpack_from(">QB", self.rest, at + 11)
            if multiple:
                found += sum(1 for one in range(self._next, tag + 1) if one not in self._ahead)
                self._ahead = {one for one in self._ahead if one > tag}
                self._next = max(self._next, tag + 1)
            else:
                found += 1
                self._ahead.add(tag)
            while self._next in self._ahead:
                self._ahead.remove(self._next)
                self._next += 1
        self.rest = self.rest[size:]
        return found


class _Receiver(LinkReceiver):
    def count(self) -> int:
        """One ack for all that came together."""
        found = len(self.rest) // _DELIVERY_SIZE
        if found:
            at = (found - 1) * _DELIVERY_SIZE + _TAG_AT
            self.write(method(1, 60, 80, self.rest[at : at + 8] + b"\x01"))
            self.rest = self.rest[found * _DELIVERY_SIZE :]
        return found


class Amqp(Peer):
    """Quorum queues."""

    port = 5672

    async def sender(self, user: int, to: int) -> Sender:
        """Publish to the queue of `to`, with confirms."""
        made = await self._log_in(_Sender())
        made.write(method(1, 85, 10, b"\0"))
        await made.until(b"\0\x55\0\x0b\xce")
        made.frame = publish(b"", _queue(to), 2)
        made.begin()
        return made

    async def receiver(self, user: int) -> Receiver:
        """Declare a durable queue and consume it."""
        made = await self._log_in(_Receiver())
        kind = short(b"x-queue-type") + b"S" + long(b"quorum")
        made.write(method(1, 50, 10, b"\0\0" + short(_queue(user)) + b"\x02" + long(kind)))
        await made.until(b"\0\x32\0\x0b")
        await made.until(_END)
        made.write(method(1, 60, 10, struct.pack(">IHB", 0, _PREFETCH, 0)))
        await made.until(b"\0\x3c\0\x0b\xce")
        await _consume(made, _queue(user), 0)
        made.begin()
        return made

    async def idle(self, user: int) -> Connection:
        """Log in and open a channel."""
        return await self._log_in(Link())

    async def member(self, user: int) -> Link:
        """Bind a transient queue to the fanout exchange."""
        made = await self._log_in(LinkMember())
        name = b"m%05d" % user
        made.write(method(1, 50, 10, b"\0\0" + short(name) + b"\x0c" + long(b"")))
        await made.until(b"\0\x32\0\x0b")
        await made.until(_END)
        where = short(name) + short(b"amq.fanout") + short(b"")
        made.write(method(1, 50, 20, b"\0\0" + where + b"\0" + long(b"")))
        await made.until(b"\0\x32\0\x15\xce")
        await _consume(made, name, 2)
        return made

    async def writer(self, user: int) -> tuple[Link, bytes]:
        """Publish to that exchange."""
        return await self._log_in(Link()), publish(b"amq.fanout", b"", 1)

    async def _log_in(self, made: Some) -> Some:
        await self.dial(made)
        made.write(b"AMQP\0\0\x09\x01")
        await made.until(b"\0\x0a\0\x0a")
        await made.until(_END)
        login = long(b"\0" + USER + b"\0" + PASSWORD)
        made.write(method(0, 10, 11, long(b"") + short(b"PLAIN") + login + short(b"en_US")))
        await made.until(b"\0\x0a\0\x1e")
        await made.until(9)
        made.write(method(0, 10, 31, struct.pack(">HIH", 16, 131072, 0)))
        made.write(method(0, 10, 40, short(b"/") + b"\0\0"))
        await made.until(b"\0\x0a\0\x29\0\xce")
        made.write(method(1, 20, 10, b"\0"))
        await made.until(b"\0\x14\0\x0b\0\0\0\0\xce")
        return made


def _queue(user: int) -> bytes:
    return b"q%05d" % user


async def _consume(link: Link, queue: bytes, flags: int) -> None:
    link.write(method(1, 60, 20, b"\0\0" + short(queue) + short(b"c") + bytes([flags]) + long(b"")))
    await link.until(b"\0\x3c\0\x15\x01c\xce")
