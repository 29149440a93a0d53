"""The client side of a run: raw connections that send prepared bytes and count marks.

A connection begins line by line: `ask` sends a frame and returns the reply. What arrives without
being asked for is counted, never parsed: a `Tally` counts one mark in complete lines, a `Sender`
the confirmations of its messages, a `Receiver` the messages delivered to it, whose packets it acks
at once. Counts are waited for with `reach`, and no wait polls, so the end of a run is the moment of
its last event.

A connection that is answered something else than it counts fails at once, with that answer.
"""

import asyncio
import base64
import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar, cast

Address = tuple[str, int]

now = time.perf_counter

# Marks: each stands exactly once in what it counts.
CONFIRMED = b'"message":"ok"'  # in the reply to a message list
DELIVERED = b'"seq":'  # in a delivered message
PACKET = b'"message":['  # in a delivered packet, which wants one ack
HEARTBEAT = b'"message":""'
PONG = b'"cmd":"ping"'
PART_SAVED = b'"cmd":"save_part"'

ACK_FRAME = b'{"message":"ok"}\n'
HEARTBEAT_FRAME = b'{"message":""}\n'
PING_FRAME = b'{"cmd":"ping"}\n'

TEXT = "the last train leaves at ten past six from platform 4, hurry"
assert len(TEXT) == 60

PART = 700 * 1024  # bytes of a file in a frame, as much as is taken
_ID = 16  # random bytes of a clientId

_Connection = TypeVar("_Connection", bound="Connection")
_Result = TypeVar("_Result")


class LoadFailed(Exception):
    """The server did not do what the run is about; the text says what it did."""


class Connection(asyncio.Protocol):
    """A connection whose unasked lines go to `lines_received`."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._rest = b""  # an unfinished line
        self._reply: asyncio.Future[bytes] | None = None  # of `ask`
        self._waiting: set[asyncio.Future[Any]] = set()  # all that a failure must end
        self._problem: LoadFailed | None = None  # why it cannot be used any more
        self._closing = False  # by us

    # What a run calls

    @property
    def usable(self) -> bool:
        """Whether nothing has gone wrong yet."""
        return self._problem is None

    def write(self, data: bytes) -> None:
        """Send, without waiting."""
        assert self._transport is not None
        self._transport.write(data)

    async def ask(self, frame: bytes) -> dict[str, Any]:
        """Send a frame that is answered, and return the next line.

        Raises: LoadFailed unless its status is 1.
        """
        self._reply = self.expect()
        self.write(frame)
        line = await self._reply
        reply = json.loads(line)
        if reply["status"] != 1:
            raise LoadFailed(f"{frame[:200]!r} was answered {line[:300]!r}")
        return cast("dict[str, Any]", reply)

    def close(self) -> None:
        """Close, without waiting."""
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    # What a subclass has

    def lines_received(self, lines: bytes) -> None:
        """Take one complete line or more."""
        self.fail(f"not asked for: {lines[:300]!r}")

    def expect(self) -> "asyncio.Future[Any]":
        """Return a future that a failure of the connection ends too."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._problem is not None:
            future.set_exception(self._problem)
        else:
            self._waiting.add(future)
            future.add_done_callback(self._waiting.discard)
        return future

    def fail(self, why: str) -> None:
        """End everything that waits, and be of no more use."""
        self._problem = self._problem or LoadFailed(why)
        for future in [one for one in self._waiting if not one.done()]:
            future.set_exception(self._problem)
        self.close()

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Cut off the unfinished line and hand on the others."""
        if self._rest:
            data = self._rest + data
        cut = data.rfind(b"\n") + 1
        self._rest = data[cut:]
        lines = data[:cut]
        if self._reply is not None and lines:
            line, _, lines = lines.partition(b"\n")
            if not self._reply.done():
                self._reply.set_result(line)
            self._reply = None
        if lines:
            self.lines_received(lines)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail, unless it was we who closed."""
        if not self._closing:
            self.fail(f"the server closed a connection ({exc}), last {self._rest[:300]!r}")


class Tally(Connection):
    """Counts a mark, each as `each`; with times in `due` it measures how long each one took."""

    def __init__(self, mark: bytes, each: int = 1) -> None:
        super().__init__()
        self.total = 0
        self.due: deque[float] = deque()  # when each of those not yet counted was sent
        self.delays: list[float] = []  # seconds
        self._mark = mark
        self._each = each
        self._goal = 0
        self._reached: asyncio.Future[Any] | None = None

    async def reach(self, goal: int) -> None:
        """Return when so many have been counted in all; one may wait at a time."""
        if self.total < goal:
            self._goal = goal
            self._reached = self.expect()
            await self._reached

    def lines_received(self, lines: bytes) -> None:
        """Count."""
        count = lines.count(self._mark)
        if not count:
            self.fail(f"not what is counted here: {lines[:300]!r}")
            return
        self.add(count)

    def add(self, count: int) -> None:
        """Note that so many marks came."""
        self.total += count * self._each
        if self.due:
            self._measure(count)
        self.counted()
        if self._reached is not None and self.total >= self._goal:
            if not self._reached.done():
                self._reached.set_result(None)
            self._reached = None

    def counted(self) -> None:
        """Do what the next step is; `total` has grown."""

    def _measure(self, count: int) -> None:
        at = now()
        for _ in range(min(count, len(self.due))):
            self.delays.append(at - self.due.popleft())


class Sender(Tally):
    """Sends messages in lists of `size`, with at most `window` of them unconfirmed.

    Its frames are prepared but for the random `clientId` that each message has.
    """

    def __init__(self, *, size: int = 1, window: int = 64) -> None:
        super().__init__(CONFIRMED, each=size)
        self.sent = 0  # messages
        self.quota = 0  # how many it may send in all
        self._size = size
        self._window = window
        self._parts = (b"", b"", b"")  # before the first clientId, between two, after the last

    def aim(self, to: str, kind: str = "1") -> None:
        """Make all further messages go to this user, or as type 7 to this group."""
        head = (
            f'{{"chatId":"","fromId":"","toId":"{to}","type":"{kind}",'
            f'"info":[{{"category":"0","content":"{TEXT}"}}],"createTime":"","clientId":"'
        )
        opening, closing = '{"status":1,"pushId":"","message":[', '"}]}\n'
        self._parts = ((opening + head).encode(), f'"}},{head}'.encode(), closing.encode())

    def go(self, quota: int) -> None:
        """Send from now on whenever there is room in the window, so many in all."""
        self.quota = quota
        self.counted()

    def halt(self) -> None:
        """Send no more; what was sent is still counted."""
        self.quota = self.sent

    def send_lists(self, count: int) -> None:
        """Send so many lists in one write."""
        self.sent += count * self._size
        self.write(b"".join([self._list() for _ in range(count)]))

    def counted(self) -> None:
        """Fill the window up again."""
        room = min(self._window - (self.sent - self.total), self.quota - self.sent)
        if room >= self._size:
            self.send_lists(room // self._size)

    def _list(self) -> bytes:
        first, between, last = self._parts
        digits = os.urandom(_ID * self._size).hex().encode()
        ids = [digits[at : at + 2 * _ID] for at in range(0, len(digits), 2 * _ID)]
        return first + between.join(ids) + last


class Receiver(Tally):
    """Counts the messages delivered to it and acks each packet."""

    def __init__(self) -> None:
        super().__init__(DELIVERED)
        self._fence: asyncio.Future[Any] | None = None

    async def fence(self) -> None:
        """Return when all acks so far are committed."""
        self._fence = self.expect()
        self.write(PING_FRAME)
        await self._fence

    def lines_received(self, lines: bytes) -> None:
        """Ack, and count."""
        if self._fence is not None and PONG in lines:
            if not self._fence.done():
                self._fence.set_result(None)
            self._fence = None
            if DELIVERED not in lines:
                return
        # Acks first: they are what the server's next packets wait for.
        self.write(ACK_FRAME * lines.count(PACKET))
        super().lines_received(lines)


class Uploader(Receiver):
    """A receiver that saves a file in parts on the same connection."""

    def __init__(self) -> None:
        super().__init__()
        self._saved: asyncio.Future[Any] | None = None

    async def upload(self, data: bytes) -> None:
        """Save a file, one part after the other is answered."""
        name, digest = "", hashlib.md5(data).hexdigest()
        for start in range(0, len(data), PART):
            part = data[start : start + PART]
            fields: dict[str, object] = {"cmd": "save_part", "upload": name, "offset": start}
            fields |= {"content": base64.b64encode(part).decode()}
            if start + PART >= len(data):
                fields |= {"md5": digest, "done": True}
            self._saved = self.expect()
            self.write(json.dumps(fields).encode() + b"\n")
            reply = json.loads(await self._saved)
            if reply["status"] != 1:
                raise LoadFailed(f"a part was answered {reply}")
            name = reply["result"].get("upload", name)
        if "path" not in reply["result"]:
            raise LoadFailed(f"the last part was answered {reply}")

    def lines_received(self, lines: bytes) -> None:
        """Take the answer of a part out of what is counted."""
        if self._saved is not None and PART_SAVED in lines:
            each = lines.splitlines(keepends=True)
            (reply,) = (line for line in each if PART_SAVED in line)
            if not self._saved.done():
                self._saved.set_result(reply)
            self._saved = None
            lines = b"".join(line for line in each if line is not reply)
        if lines:
            super().lines_received(lines)


async def dial(address: Address, make: Callable[[], _Connection]) -> _Connection:
    """Connect."""
    _, connection = await asyncio.get_running_loop().create_connection(make, *address)
    return connection


async def resume(connection: Connection, push_id: str) -> int:
    """Take a device up again on a fresh connection; return how many messages wait for it."""
    reply = await connection.ask(
        f'{{"status":1,"pushId":"{push_id}","message":"restart"}}\n'.encode()
    )
    return int(reply["queued"])


async def in_turns(
    jobs: Iterable[Callable[[], Awaitable[_Result]]], *, at_once: int
) -> list[_Result]:
    """Run jobs, so many at a time, and return their results in order."""
    rest = enumerate(jobs)
    results: dict[int, _Result] = {}

    async def work() -> None:
        for number, job in rest:
            results[number] = await job()

    await asyncio.gather(*(work() for _ in range(at_once)))
    return [results[number] for number in sorted(results)]
