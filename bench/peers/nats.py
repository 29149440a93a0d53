"""NATS with JetStream: one stream on files, a durable push consumer for each receiver."""

import json
import re

from ..load import Connection, Receiver, Sender
from .link import BODY, PASSWORD, USER, Link, LinkMember, LinkReceiver, LinkSender
from .peer import Peer, Some

# A delivery: subject, subscription, where to ack, 60 bytes
_DELIVERY = re.compile(rb"MSG \S+ \S+ (\S+) 60\r\n")
_ACK_WAIT = 60_000_000_000  # nanoseconds


class _Sender(LinkSender):
    def count(self) -> int:
        """A stored message is answered with its place in the stream."""
        return self.count_marks(b'"seq":')


class _Receiver(LinkReceiver):
    def count(self) -> int:
        """The ack of the last one stands for all before it."""
        end = self.rest.rfind(BODY + b"\r\n")
        if end < 0:
            return 0
        end += len(BODY) + 2
        found = _DELIVERY.findall(self.rest[:end])
        self.rest = self.rest[end:]
        if found:
            self.write(b"PUB %s 4\r\n+ACK\r\n" % found[-1])
        return len(found)


class Nats(Peer):
    """JetStream."""

    port = 4222

    async def prepare(self, users: range) -> None:
        """Make the stream."""
        link = await self._log_in(Link())
        stream: dict[str, object] = {
            "name": "MSG",
            "subjects": ["m.*"],
            "storage": "file",
            "num_replicas": 1,
        }
        await _ask(link, b"$JS.API.STREAM.CREATE.MSG", stream)
        link.close()

    async def sender(self, user: int, to: int) -> Sender:
        """Publish to a subject of the stream; answers come to a subject of one's own."""
        made = await self._log_in(_Sender())
        made.write(b"SUB r.%d 1\r\n" % user)
        made.frame = b"PUB m.%d r.%d 60\r\n%s\r\n" % (to, user, BODY)
        made.begin()
        return made

    async def receiver(self, user: int) -> Receiver:
        """Consume a subject."""
        made = await self._log_in(_Receiver())
        made.write(b"SUB d.%d 1\r\n" % user)
        consumer = {
            "durable_name": f"c{user}",
            "deliver_subject": f"d.{user}",
            "ack_policy": "all",
            "filter_subject": f"m.{user}",
            "deliver_policy": "all",
            "max_ack_pending": 20000,
            "ack_wait": _ACK_WAIT,
        }
        body: dict[str, object] = {"stream_name": "MSG", "config": consumer}
        await _ask(made, b"$JS.API.CONSUMER.DURABLE.CREATE.MSG.c%d" % user, body)
        made.begin()
        return made

    async def idle(self, user: int) -> Connection:
        """Log in."""
        return await self._log_in(Link())

    async def member(self, user: int) -> Link:
        """Subscribe to a subject that is not stored."""
        made = await self._log_in(LinkMember())
        made.write(b"SUB all 1\r\n")
        return made

    async def writer(self, user: int) -> tuple[Link, bytes]:
        """Publish to it."""
        return await self._log_in(Link()), b"PUB all 60\r\n%s\r\n" % BODY

    async def _log_in(self, made: Some) -> Some:
        await self.dial(made)
        await made.until(b"\r\n")
        fields = {"verbose": False, "pedantic": False, "lang": "bench", "version": "1"}
        fields |= {"user": USER.decode(), "pass": PASSWORD.decode()}
        fields |= {"headers": True, "no_responders": True}
        made.write(b"CONNECT %s\r\nPING\r\n" % json.dumps(fields).encode())
        await made.until(b"PONG\r\n")
        return made


async def _ask(link: Link, subject: bytes, body: dict[str, object]) -> None:
    text = json.dumps(body).encode()
    link.write(b"SUB answers 9\r\nPUB %s answers %d\r\n%s\r\n" % (subject, len(text), text))
    await link.until(b"MSG answers 9 ")
    size = int(await link.until(b"\r\n"))
    answer = json.loads(await link.until(size + 2))
    if "error" in answer:
        link.fail(f"JetStream: {answer['error']}")
    link.write(b"UNSUB 9\r\n")
