"""Phones of a long run: devices that come and go, and write down what they see.

A phone is a task that connects, takes its device up again, sends again what was not answered,
receives and acks until it is ordered away or the connection breaks, and comes again. What it sees
is a log for `tests.model.checker`. It speaks the wire by `tests.conformance.wire`.

Orders are how a connection ends: `close` (FIN), `abort` (reset), `vanish` (neither), `replace` (a
second connection takes the device while the first is still there), `renew` (sign-out, login and a
new device).
"""

import asyncio
import base64
import contextlib
import itertools
import os
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.conformance.wire import (
    PASSWORD,
    Address,
    Closed,
    Frame,
    Wire,
    content,
    frame,
    is_push,
)
from tests.model.checker import Acked, Answered, Delivered, Entry, Fenced, Left, Resumed, Sent

HEARTBEAT = 30  # seconds, the least a server allows by default
QUIET = 15.0  # seconds after which a phone pings
PATIENCE = 60.0  # seconds for any frame; a live phone hears an answer more often
BACKOFF = 1.0  # seconds before a connection is tried again; up to half of it more
UNANSWERED = 50  # messages
LIST = 10  # messages sent again at a time
LATE_ACKS = 0.1  # of all packets are acked with the next one

GONE = (ConnectionError, Closed, OSError)


class Hole(Exception):
    """The server broke the contract so that a phone cannot go on."""


class Order(NamedTuple):
    """How a connection ends, and for how many seconds the phone stays away."""

    how: str
    away: float


class Chat(NamedTuple):
    """Where a phone writes to."""

    to: str
    kind: str  # the type of its messages


@dataclass
class Pending:
    """A message that is not answered yet."""

    client_id: str
    chat: Chat
    content: str
    category: str
    at: float = 0.0  # when it was sent last


class Due(NamedTuple):
    """A reply that is due: what takes it, and who waits."""

    take: Callable[[Frame], None]
    future: "asyncio.Future[Frame] | None" = None


@dataclass
class Book:
    """What all phones write into."""

    log: list[Entry] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)  # from sending to "ok", in seconds
    renewing: int = 0  # phones between two devices


class Phone:
    """One person's device, and the next one after a sign-out."""

    def __init__(self, number: int, book: Book, rng: random.Random) -> None:
        self.number = number
        self.backoff = BACKOFF  # seconds before a connection is tried again
        self.patience = PATIENCE  # seconds for any frame
        self.phone = str(13_800_000_000 + number)
        self.user = ""  # the server's id
        self.chats: list[Chat] = []
        self.online = False
        self.turns = 0  # how often it came
        self.last = 0  # the highest seq that was taken in
        self.unanswered: deque[Pending] = deque()
        self._book = book
        self._random = rng
        self._name = ""  # of the device, in the log
        self._generation = 0
        self._push_id = ""  # "" when the next start makes a new device
        self._turn = 0  # of the device
        self._acked = 0
        self._target = 0  # the highest seq that waited when it came
        self.waited = 0  # messages that waited when it came
        self._count = itertools.count(1)
        self._due: deque[Due] = deque()  # replies, in order
        self._out: asyncio.Queue[Frame] = asyncio.Queue()  # lines, in the order of `_due`
        self._order: asyncio.Future[Order] | None = None
        self._spoke = 0.0
        self._wanted = asyncio.Event()  # it shall not stay away
        self._signing_out = False
        self._attached = False  # the connection has taken the device up
        self._wire: Wire | None = None
        self._replaced: list[Wire] = []  # the last one, which the phone forgot to close

    # --- setting up -----------------------------------------------------------------------

    async def register(self, address: Address) -> Wire:
        """Make the account; gives the connection, for friends and groups."""
        wire = await Wire.connect(address)
        await wire.register(self.phone)
        self.user = wire.user_id
        return wire

    async def first_start(self, wire: Wire) -> None:
        """Make the device, take off it what waits, and close."""
        started = await wire.start(heartbeat=HEARTBEAT)
        await wire.drain(started["queued"])
        self._push_id, self.last = wire.push_id, started["last"]
        wire.close()
        self._name = f"{self.number}.0"

    # --- its life -------------------------------------------------------------------------

    async def live(self, address: Callable[[], Address]) -> None:
        """Come and go until cancelled; raises Hole or AssertionError for what must not be."""
        try:
            while True:
                try:
                    await self._come(address())
                except GONE:
                    self._cut("close")
                    await self._rest(self.backoff)
                    continue
                order = await self._stay()
                self._cut(order.how)
                if order.away:
                    await self._rest(order.away)
        finally:
            for wire in (*self._replaced, *([self._wire] if self._wire else [])):
                wire.close()

    def order(self, how: str, away: float = 0.0) -> bool:
        """Have it end its connection; False when it is not online or has an order already."""
        if not self.online or self._order is None or self._order.done() or self._signing_out:
            return False
        self._order.set_result(Order(how, away))
        return True

    async def _rest(self, seconds: float) -> None:
        self._wanted.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds * self._random.uniform(0.8, 1.5)):
                await self._wanted.wait()

    def hurry(self) -> None:
        """Come back now, if it is away."""
        self._wanted.set()

    async def _come(self, address: Address) -> None:
        """Connect, take up the device or make one, and send again what is unknown."""
        self._wire = wire = await Wire.connect(address)
        if self._push_id:
            reply = await wire.exchange(frame("restart", self._push_id, heartbeat=HEARTBEAT))
            if reply["status"] == 11001 and self._signing_out:
                # The logout was committed, and its reply was lost.
                self._leave()
                raise ConnectionResetError
        else:
            await wire.login(self.phone, PASSWORD)
            reply = await wire.exchange(frame("start", heartbeat=HEARTBEAT))
        if reply["status"] == 5030:
            raise ConnectionResetError
        if reply["status"] != 1:
            raise Hole(f"{self._name} cannot come: {reply}")
        self._bound(reply)
        self._order = asyncio.get_running_loop().create_future()
        self.online = True
        again = list(self.unanswered)
        while again:
            count = self._random.randint(1, LIST)
            self._post(again[:count])
            del again[:count]

    def _bound(self, reply: Frame) -> None:
        if not self._push_id:
            self._generation += 1
            self._name, self._turn = f"{self.number}.{self._generation}", 0
        if self._signing_out:
            self._book.renewing -= 1
            self._signing_out = False
        self._push_id = reply["pushId"]
        first, last, queued = reply["first"], reply["last"], reply["queued"]
        self._turn, self._attached = self._turn + 1, True
        self.turns += 1
        self._log(Resumed(self._name, self._turn, self.user, first, last, queued))
        self.last = self._acked = first - 1 if queued else last
        self._target, self.waited = last, queued
        self._spoke = time.monotonic()

    async def _stay(self) -> Order:
        """Receive until there is an order or the connection ends."""
        assert self._order is not None
        reading = asyncio.ensure_future(self._receive())
        tasks: list[asyncio.Future[None]] = [reading, asyncio.ensure_future(self._write_out())]
        try:
            await asyncio.wait([reading, self._order], return_when=asyncio.FIRST_COMPLETED)
            if self._order.done() and self._order.result().how == "renew" and not reading.done():
                tasks.append(asyncio.ensure_future(self._sign_out()))
                await asyncio.wait([reading, tasks[-1]], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.online = False
            for task in tasks:
                task.cancel()
        for found in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(found, Exception) and not isinstance(found, GONE):
                raise found
        return self._order.result() if self._order.done() else Order("close", self.backoff)

    def _cut(self, how: str) -> None:
        """End the connection; what was not answered is unknown."""
        self.online = False
        for due in self._due:
            if due.future is not None and not due.future.done():
                due.future.set_exception(ConnectionResetError())
                # Whoever does not wait for it does not mind that it is lost either.
                due.future.exception()
        self._due.clear()
        self._out = asyncio.Queue()
        if self._attached:
            for pending in self.unanswered:
                self._log(Answered(self._name, self._turn, pending.client_id, "unknown"))
        self._attached = False
        if self._wire is None:
            return
        if how == "replace":
            # It is there, and silent, until long after the device has come up elsewhere.
            self._replaced.append(self._wire)
            if len(self._replaced) > 1:
                self._replaced.pop(0).close()
        elif how in ("abort", "vanish"):
            with contextlib.suppress(OSError):
                getattr(self._wire, how)()
            self._wire.close()
        else:
            self._wire.close()

    async def _sign_out(self) -> None:
        """Log the device out, once nothing is unanswered."""
        self._signing_out = True
        self._book.renewing += 1
        await self.fence()
        reply = await self.request({"cmd": "logout"})
        if reply["status"] != 1:
            raise Hole(f"{self._name} cannot log out: {reply}")
        self._leave()

    def _leave(self) -> None:
        self._log(Left(self._name, self._turn))
        self._push_id = ""

    # --- receiving ------------------------------------------------------------------------

    async def _receive(self) -> None:
        wire = self._wire
        assert wire is not None
        while True:
            try:
                received = await wire.recv(self.patience)
            except TimeoutError:
                raise Hole(f"{self._name} heard nothing for {self.patience:.0f} s") from None
            if received["status"] == 5030:
                # Nothing that comes later can be relied on: it is unknown and sent again.
                raise ConnectionResetError
            if not is_push(received):
                self._take_reply(received)
            elif isinstance(received["message"], list):
                self._take(received["message"])

    def _take_reply(self, received: Frame) -> None:
        if not self._due:
            raise Hole(f"{self._name} was sent {received}")
        take, future = self._due.popleft()
        take(received)
        if future is not None and not future.done():
            future.set_result(received)

    def _take(self, messages: list[Frame]) -> None:
        for message in messages:
            if message["type"] == "0":
                raise Hole(f"{self._name} was sent {message}")
            to = message["toId"] if message["type"] == "1" else message["chatId"]
            number, sender = int(message["msgId"]), message["fromId"]
            words, seq = content(message), message["seq"]
            self._log(Delivered(self._name, self._turn, seq, number, sender, to, words))
            self.last = seq
        if self._random.random() >= LATE_ACKS:
            self._ack()

    def _ack(self) -> None:
        for seq in range(self._acked + 1, self.last + 1):
            self._log(Acked(self._name, self._turn, seq))
        self._acked = self.last
        self._write(frame("ok", self._push_id, seq=self.last))

    # --- sending --------------------------------------------------------------------------

    @property
    def free(self) -> bool:
        """Whether it may send something new."""
        return self.online and not self._signing_out and len(self.unanswered) < UNANSWERED

    def say(self, chat: Chat, count: int = 1) -> None:
        """Send texts."""
        fresh = [self._pending(chat, "") for _ in range(count)]
        self.unanswered += fresh
        self._post(fresh)

    async def share(self, chat: Chat, size: int) -> None:
        """Save a file and send it; nothing is sent when the connection breaks in between."""
        coded = base64.b64encode(os.urandom(size)).decode()
        reply = await self.request({"cmd": "save_file", "name": "a file", "content": coded})
        if reply["status"] != 1:
            raise Hole(f"{self._name} saved a file: {reply}")
        if self.free:
            pending = self._pending(chat, reply["result"]["path"])
            self.unanswered.append(pending)
            self._post([pending])

    def _pending(self, chat: Chat, path: str) -> Pending:
        client_id = f"{self.number}-{next(self._count)}"
        return Pending(client_id, chat, path or f"{client_id} says hello", "3" if path else "0")

    def _post(self, pendings: Sequence[Pending]) -> None:
        for one in pendings:
            one.at = time.monotonic()
            self._log(Sent(self._name, self._turn, one.client_id, one.chat.to, one.content))
        messages = [_message(one) for one in pendings]
        self._due.append(Due(lambda reply: self._confirmed(len(pendings), reply)))
        self._write(frame(messages, self._push_id))

    def _confirmed(self, count: int, reply: Frame) -> None:
        results = reply.get("result")
        if reply["status"] != 1 or not results or len(results) != count:
            raise Hole(f"{self._name} sent {count} messages: {reply}")
        for result in results:
            pending = self.unanswered.popleft()
            number = int(result["msgId"])
            entry = Answered(self._name, self._turn, pending.client_id, "confirmed", number)
            self._log(entry)
        self._book.latencies.append(time.monotonic() - pending.at)

    def tick(self) -> None:
        """Show life when it has said nothing for a while, and ack what is left."""
        if self.online and time.monotonic() - self._spoke > QUIET:
            self.fence()

    def fence(self) -> "asyncio.Future[Frame]":
        """Ack what is left, and note when that is committed."""
        if self._acked < self.last:
            self._ack()
        acked, turn = self._acked, self._turn

        def answered(reply: Frame) -> None:
            if reply["status"] != 1:
                raise Hole(f"{self._name} pinged: {reply}")
            if self._acked == acked:
                self._log(Fenced(self._name, turn))

        return self.request({"cmd": "ping"}, answered)

    def request(
        self, line: Frame, take: Callable[[Frame], None] = lambda reply: None
    ) -> "asyncio.Future[Frame]":
        """Send a command; whoever waits for the reply gets ConnectionResetError if it is lost."""
        future: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._due.append(Due(take, future))
        self._write(line)
        return future

    def _write(self, line: Frame) -> None:
        self._spoke = time.monotonic()
        self._out.put_nowait(line)

    async def _write_out(self) -> None:
        wire, out = self._wire, self._out
        assert wire is not None
        while True:
            await wire.send_line(await out.get())

    # --- judging --------------------------------------------------------------------------

    @property
    def settled(self) -> bool:
        """Whether it is online, and all that it sent is answered, all that waited taken in."""
        return self.online and not self.unanswered and self.last >= self._target

    def begin_log(self) -> None:
        """Begin a new log on a connection that is quiet."""
        self._turn = 1
        self._log(Resumed(self._name, 1, self.user, 0, self.last, 0))

    def _log(self, entry: Entry) -> None:
        self._book.log.append(entry)


def _message(one: Pending) -> Frame:
    to, kind = one.chat
    return {
        "chatId": "" if kind == "1" else to,
        "toId": to if kind == "1" else "",
        "type": kind,
        "info": [{"category": one.category, "content": one.content}],
        "clientId": one.client_id,
    }
