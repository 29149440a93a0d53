"""XMPP: stream management (XEP-0198) confirms and acks; groups are rooms (XEP-0045)."""

import asyncio
import base64
import re
from functools import partial

from ..load import Connection, Receiver, Sender, in_turns
from .link import BODY, PASSWORD, Link, LinkMember, LinkReceiver, LinkSender
from .peer import Peer, Some

_OPEN = (
    b"<stream:stream to='localhost' version='1.0' xmlns='jabber:client'"
    b" xmlns:stream='http://etherx.jabber.org/streams'>"
)
_SM = b"xmlns='urn:xmpp:sm:3'"
_HANDLED = re.compile(rb"<a [^>]*?h=['\"](\d+)['\"]")
_STANZA_ENDS = (b"</message>", b"<presence ", b"<iq ")


class _Sender(LinkSender):
    def __init__(self) -> None:
        super().__init__()
        self._handled = 0

    def send_lists(self, count: int) -> None:
        """Ask how much was handled after each write."""
        self.sent += count
        self.write(self.frame * count + b"<r %s/>" % _SM)

    def count(self) -> int:
        """The last answer counts."""
        end = self.rest.rfind(b">") + 1
        found = _HANDLED.findall(self.rest[:end])
        self.rest = self.rest[end:]
        if not found:
            return 0
        before, self._handled = self._handled, int(found[-1])
        return self._handled - before


class _Receiver(LinkReceiver):
    def __init__(self) -> None:
        super().__init__()
        self._stanzas = 0

    def count(self) -> int:
        """Answer a question with the number of stanzas."""
        end = self.rest.rfind(b">") + 1
        part, self.rest = self.rest[:end], self.rest[end:]
        self._stanzas += sum(part.count(end) for end in _STANZA_ENDS)
        if b"<r " in part:
            self.write(b"<a %s h='%d'/>" % (_SM, self._stanzas))
        return part.count(BODY)


class Xmpp(Peer):
    """An account for each user, made by registration in the stream."""

    settles = 5.0

    def __init__(self, port: int) -> None:
        self.port = port
        self._rooms = 0

    async def prepare(self, users: range) -> None:
        """Register the accounts."""

        async def register(user: int) -> None:
            link = await self._open(Link())
            account = b"<username>u%d</username><password>%s</password>" % (user, PASSWORD)
            link.write(
                b"<iq type='set' id='r'><query xmlns='jabber:iq:register'>%s</query></iq>" % account
            )
            answer = await link.until(b">")
            while b"result" not in answer and b"error" not in answer:
                answer += await link.until(b">")
            if b"error" in answer:
                link.fail(f"not registered: {answer!r}")
            link.close()

        await in_turns([partial(register, user) for user in users], at_once=10)

    async def sender(self, user: int, to: int) -> Sender:
        """Write chat messages to one account."""
        made = await self._log_in(_Sender(), user)
        await _manage(made)
        made.frame = b"<message to='u%d@localhost' type='chat' id='m'><body>%s</body></message>" % (
            to,
            BODY,
        )
        made.begin()
        return made

    async def receiver(self, user: int) -> Receiver:
        """Be available, with stream management."""
        made = await self._log_in(_Receiver(), user)
        await _manage(made)
        made.write(b"<presence/>")
        made.begin()
        return made

    async def leave(self, receiver: Receiver) -> None:
        """Say so, or messages would wait for the stream and not for the account."""
        receiver.write(b"<presence type='unavailable'/></stream:stream>")
        await asyncio.sleep(0.5)
        await super().leave(receiver)

    async def idle(self, user: int) -> Connection:
        """Log in and be available."""
        made = await self._log_in(Link(), user)
        made.write(b"<presence/>")
        await made.until(b"<presence")
        await made.until(b">")
        made.begin()
        return made

    async def writer(self, user: int) -> tuple[Link, bytes]:
        """Make a room."""
        self._rooms += 1
        room = self._room
        made = await self._log_in(Link(), user)
        await _join(made, room, user)
        made.write(
            b"<iq type='set' id='cfg' to='%s'><query xmlns='http://jabber.org/protocol/muc#owner'>"
            b"<x xmlns='jabber:x:data' type='submit'/></query></iq>" % room
        )
        await made.until(b"cfg")
        text = b"<message to='%s' type='groupchat' id='g'><body>%s</body></message>" % (room, BODY)
        return made, text

    async def member(self, user: int) -> Link:
        """Join it."""
        made = await self._log_in(LinkMember(), user)
        await _join(made, self._room, user)
        return made

    @property
    def _room(self) -> bytes:
        return b"room%d@conference.localhost" % self._rooms

    async def _open(self, made: Some) -> Some:
        await self.dial(made)
        made.write(_OPEN)
        await made.until(b"</stream:features>")
        return made

    async def _log_in(self, made: Some, user: int) -> Some:
        await self._open(made)
        login = base64.b64encode(b"\0u%d\0%s" % (user, PASSWORD))
        made.write(
            b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>%s</auth>" % login
        )
        await made.until(b"<success")
        await made.until(b">")
        made.rest = b""
        made.write(_OPEN)
        await made.until(b"</stream:features>")
        made.write(
            b"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
            b"<resource>d</resource></bind></iq>"
        )
        await made.until(b"</iq>")
        return made


async def _manage(link: Link) -> None:
    link.write(b"<enable %s/>" % _SM)
    await link.until(b"<enabled")
    await link.until(b">")


async def _join(link: Link, room: bytes, user: int) -> None:
    link.write(
        b"<presence to='%s/n%d'><x xmlns='http://jabber.org/protocol/muc'/></presence>"
        % (room, user)
    )
    await link.until(b"110")
    await link.until(b">")
