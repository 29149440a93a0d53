"""The network between phones and the server: two pipes a connection, driven by the seed.

A pipe cuts what is written into chunks, each of which takes its time; order is kept. The end that
reads may stop, then the pipe fills. A connection ends as real ones do: by FIN, by a reset, or
without a word, so that the other side believes in it until its own deadline.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from tests.sim.loop import Life
from tests.sim.points import Points

PORT = 9527
# Bytes that a reader's machine takes in before the reader does.
ROOM = (2048, 65536)
LATENCY = (0.0002, 0.02)  # seconds
LONG = 1.5  # a packet that was lost on the way and sent again


class Reader(Protocol):
    """The phone's side of a connection."""

    def received(self, link: "Link", data: bytes) -> None:
        """Take bytes in."""

    def ended(self, link: "Link") -> None:
        """Learn that nothing more comes."""


class Pipe:
    """Bytes one way; `receive` gets b"" at their end."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        rng: random.Random,
        points: Points,
        point: str,
        receive: Callable[[bytes], None],
    ) -> None:
        self.receive = receive
        self.drained: Callable[[], None] = lambda: None  # called when bytes have left
        self.waiting = bytearray()  # written, not on their way
        self.reading = True  # the other end takes what arrives
        self.lost = False  # nothing arrives any more, and nobody learns it
        self._loop, self._rng, self._points, self._point = loop, rng, points, point
        self._room = rng.randint(*ROOM)
        self._held: deque[bytes] = deque()  # arrived, not taken
        self._held_bytes = 0
        self._travelling = False
        self._ends = False  # an end is to follow what waits
        self._dead = False

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self.waiting += data
        self._move()

    def end(self) -> None:
        """Send the end."""
        self._ends = True
        self._move()

    def cut(self) -> None:
        """Drop what is under way; nothing arrives any more."""
        self._dead = True
        self.waiting.clear()
        self._held.clear()

    def resume(self) -> None:
        """Take what arrived, and what arrives."""
        self.reading = True
        self._hand_over()
        self._move()

    def _move(self) -> None:
        if self._travelling or self._dead or self._held_bytes >= self._room:
            return
        if not self.waiting:
            if self._ends:
                self._travelling = True
                self._loop.call_later(self._delay(), self._arrive, b"")
            return
        size = len(self.waiting)
        if size > 1 and self._points.hit(self._point):
            size = self._rng.randint(1, min(size - 1, self._rng.choice((3, 40, 400))))
        else:
            size = min(size, self._room)
        chunk = bytes(self.waiting[:size])
        del self.waiting[:size]
        self._travelling = True
        self._loop.call_later(self._delay(), self._arrive, chunk)

    def _delay(self) -> float:
        if self._points.hit("late_packet", 0.01):
            return LONG * self._rng.random()
        return self._rng.uniform(*LATENCY)

    def _arrive(self, chunk: bytes) -> None:
        self._travelling = False
        if self._dead:
            return
        if self.lost:
            self.drained()
            self._move()
            return
        self._held.append(chunk)
        self._held_bytes += len(chunk)
        if not chunk:
            self._ends, self._travelling = False, True  # nothing travels behind the end
        self._hand_over()
        self.drained()
        if chunk:
            self._move()

    def _hand_over(self) -> None:
        while self.reading and self._held and not self._dead:
            chunk = self._held.popleft()
            self._held_bytes -= len(chunk)
            self.receive(chunk)


class Transport(asyncio.Transport):
    """The server's end, as asyncio's transports behave."""

    def __init__(self, link: "Link", life: Life, address: str) -> None:
        super().__init__()
        self._link, self._life, self._address = link, life, address
        self._closing = False
        self._paused = False
        self._high, self._low = 65536, 16384
        self.protocol: Any = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Give the peer's address."""
        return (self._address, PORT) if name == "peername" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when the protocol is asked to pause."""
        self._high = 65536 if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        """Give how many bytes wait."""
        return len(self._link.down.waiting)

    def is_closing(self) -> bool:
        """Tell whether it is closed or will be."""
        return self._closing

    def pause_reading(self) -> None:
        """Take nothing in."""
        self._link.up.reading = False

    def resume_reading(self) -> None:
        """Take in again; not before this turn is over."""
        self._link.loop.call_soon(self._link.up.resume)

    def write(self, data: Any) -> None:
        """Send."""
        if self._closing or self._life.dead:
            return
        self._link.down.write(bytes(data))
        if not self._paused and self.get_write_buffer_size() > self._high:
            self._paused = True
            self.protocol.pause_writing()

    def drained(self) -> None:
        """Have the protocol go on once there is room; close when nothing is left."""
        if self._life.dead:
            return
        if self._paused and self.get_write_buffer_size() <= self._low:
            self._paused = False
            self._life.context.run(self.protocol.resume_writing)
        if self._closing and not self.get_write_buffer_size():
            self._lose(None)

    def write_eof(self) -> None:
        """Send the end."""
        self._link.down.end()

    def close(self) -> None:
        """Send what waits, then end."""
        if self._closing:
            return
        self._closing = True
        self._link.down.end()
        if not self.get_write_buffer_size():
            self._link.loop.call_soon(self._lose, None)

    def abort(self) -> None:
        """End at once."""
        if not self._life.dead:
            self._link.broken()

    def _lose(self, problem: Exception | None) -> None:
        self._link.lost(problem)


class Link:
    """One connection, as the world sees it: `up` to the server, `down` to the phone."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        rng: random.Random,
        points: Points,
        reader: Reader,
        life: Life,
        address: str,
    ) -> None:
        self.loop = loop
        self.open = True  # the phone believes in it
        self._reader, self._life, self._rng = reader, life, rng
        self.up = Pipe(loop, rng, points, "split_read", self._to_server)
        self.down = Pipe(loop, rng, points, "short_write", self._to_phone)
        self.transport = Transport(self, life, address)
        self.down.drained = self.transport.drained
        self._made = False
        self._gone = False  # the server's protocol knows that it is lost

    def connect(self, protocol: Any) -> None:
        """Let the server's protocol begin."""
        self.transport.protocol = protocol
        self._made = True
        self._life.context.run(protocol.connection_made, self.transport)

    # --- what the phone does --------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send bytes to the server."""
        if self.open:
            self.up.write(data)

    def close(self) -> None:
        """End politely; nothing that comes is read any more."""
        self.open = False
        self.up.end()

    def reset(self) -> None:
        """End at once, both ways."""
        self.open = False
        self.loop.call_later(self._rng.uniform(*LATENCY), self.broken)

    def vanish(self) -> None:
        """Go without a word: the server will not learn it."""
        self.open = False
        self.up.lost = self.down.lost = True

    # --- what happens to it -----------------------------------------------------------------

    def broken(self) -> None:
        """Cut it: both sides learn it."""
        self.down.cut()
        self._tell_phone(b"")
        self.lost(ConnectionResetError("cut"))

    def lost(self, problem: Exception | None) -> None:
        """Tell the server's protocol that it is over, once."""
        if self._gone or not self._made:
            return
        self._gone = True
        self.up.cut()
        self.transport._closing = True
        if not self._life.dead:
            self.loop.call_soon(
                self.transport.protocol.connection_lost, problem, context=self._life.context
            )

    def server_died(self, *, politely: bool) -> None:
        """End with the server's process; its machine may send what waited, then the end."""
        self._gone = True
        self.up.cut()
        if politely:
            self.down.end()
        else:
            self.down.cut()
            self.loop.call_later(self._rng.uniform(*LATENCY), self._tell_phone, b"")

    def _to_server(self, data: bytes) -> None:
        if self._life.dead or self._gone:
            return
        protocol = self.transport.protocol
        if data:
            self._life.context.run(protocol.data_received, data)
        elif not self._life.context.run(protocol.eof_received):
            self.transport.close()

    def _to_phone(self, data: bytes) -> None:
        self._tell_phone(data)

    def _tell_phone(self, data: bytes) -> None:
        if not self.open:
            return
        if data:
            self._reader.received(self, data)
        else:
            self.open = False
            self._reader.ended(self)
