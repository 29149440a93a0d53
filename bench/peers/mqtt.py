"""MQTT 3.1.1 with QoS 1 and sessions that persist."""

import struct

from ..load import Connection, Receiver, Sender
from .link import BODY, PASSWORD, USER, Link, LinkMember, LinkReceiver, LinkSender
from .peer import Peer, Some

_TOPIC = b"t/%05d"
# A PUBLISH with QoS 1: head, topic with its length, packet id, text
_SIZE = 2 + 2 + 7 + 2 + len(BODY)
_ID_AT = 2 + 2 + 7
_IDS = 512  # packet ids in use, more than a window


def text(data: bytes) -> bytes:
    """Write a string."""
    return struct.pack(">H", len(data)) + data


def publish(topic: bytes, number: int = 0) -> bytes:
    """Write a PUBLISH, of QoS 1 if it has a packet id."""
    body = text(topic) + (struct.pack(">H", number) if number else b"") + BODY
    return bytes([0x32 if number else 0x30, len(body)]) + body


class _Sender(LinkSender):
    def __init__(self) -> None:
        super().__init__()
        self.frames: list[bytes] = []

    def send_lists(self, count: int) -> None:
        """Packet ids go round."""
        at = self.sent % _IDS
        self.sent += count
        self.write(b"".join(self.frames[at : at + count]))

    def count(self) -> int:
        """A sender gets nothing but PUBACKs of four bytes."""
        found, left = divmod(len(self.rest), 4)
        self.rest = self.rest[len(self.rest) - left :]
        return found


class _Receiver(LinkReceiver):
    def count(self) -> int:
        """All deliveries have one size; each gets a PUBACK."""
        found = len(self.rest) // _SIZE
        end = found * _SIZE
        acks = bytearray(b"\x40\x02\0\0" * found)
        acks[2::4] = self.rest[_ID_AT:end:_SIZE]
        acks[3::4] = self.rest[_ID_AT + 1 : end : _SIZE]
        self.rest = self.rest[end:]
        if found:
            self.write(bytes(acks))
        return found


class Mqtt(Peer):
    """A topic for each receiver."""

    port = 1883

    async def sender(self, user: int, to: int) -> Sender:
        """Publish to a topic."""
        made, _ = await self._log_in(_Sender(), b"s%05d" % user)
        frames = [publish(_TOPIC % to, number) for number in range(1, _IDS + 1)]
        made.frames = frames * 2
        made.begin()
        return made

    async def receiver(self, user: int) -> Receiver:
        """Subscribe once; the session keeps it."""
        made, known = await self._log_in(_Receiver(), b"r%05d" % user)
        if not known:
            await _subscribe(made, _TOPIC % user, 1)
        made.begin()
        return made

    async def idle(self, user: int) -> Connection:
        """Log in with a session that ends with the connection, and subscribe."""
        made, _ = await self._log_in(Link(), b"i%05d" % user, clean=True)
        await _subscribe(made, _TOPIC % user, 1)
        return made

    async def member(self, user: int) -> Link:
        """Subscribe to one topic with QoS 0."""
        made, _ = await self._log_in(LinkMember(), b"m%05d" % user, clean=True)
        await _subscribe(made, b"g/00000", 0)
        return made

    async def writer(self, user: int) -> tuple[Link, bytes]:
        """Publish to it."""
        made, _ = await self._log_in(Link(), b"w%05d" % user, clean=True)
        return made, publish(b"g/00000")

    async def _log_in(self, made: Some, name: bytes, *, clean: bool = False) -> tuple[Some, bool]:
        """Connect; tells whether there was a session."""
        await self.dial(made)
        flags = 0xC0 | (2 if clean else 0)
        body = text(b"MQTT") + bytes([4, flags]) + struct.pack(">H", 0)
        body += text(name) + text(USER) + text(PASSWORD)
        made.write(bytes([0x10, len(body)]) + body)
        answer = await made.until(4)
        if answer[3]:
            made.fail(f"MQTT refused: {answer!r}")
        return made, bool(answer[2] & 1)


async def _subscribe(link: Link, topic: bytes, quality: int) -> None:
    body = struct.pack(">H", 1) + text(topic) + bytes([quality])
    link.write(bytes([0x82, len(body)]) + body)
    await link.until(5)
