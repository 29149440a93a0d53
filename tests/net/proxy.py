"""A bad network between a client and the server: one proxy, and a fault for each connection.

    proxy = Proxy(server.address, choose)    # `choose` gives the faults of the next connection
    async with proxy:
        await asyncio.open_connection(*proxy.address)

What TCP keeps, the proxy keeps: the bytes that arrive are a prefix of those that were sent, in
order and unchanged. Everything else it may do: be late or slow, cut bytes into slices, let one
direction fall silent, reset, end one direction, or lose a reply and all that comes after it.

A connection whose client has hung up may linger: the server is not told, and gets late what was
still on its way, as from a phone that changed its network.
"""

import asyncio
import contextlib
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

Address = tuple[str, int]

CHUNK = 65536
UP, DOWN = "up", "down"  # from the client to the server, and back


@dataclass(frozen=True)
class Faults:
    """What is wrong with one connection; times in seconds."""

    latency: float = 0.0  # each chunk is late by this,
    jitter: float = 0.0  # and by up to this
    rate: int = 0  # bytes a second in each direction, 0 for any
    slice: int = 0  # bytes in one write at most, 0 for any
    ending: str = ""  # "hole", "reset" or "half-close", none for ""
    way: str = DOWN  # the direction that the ending is about
    after: float = 0.0  # when the ending comes
    swallow: int = 0  # the n-th reply to a list, and all behind it, is lost; 0 for none
    linger: float = 0.0  # how long the server is not told of a client that hung up


def is_confirmation(line: bytes) -> bool:
    """Tell whether a line of the server confirms a list of messages."""
    return b'"message":"ok","result":[' in line


class Proxy:
    """Listen on a port of the loopback, and connect each client to the server."""

    def __init__(
        self, server: Address, choose: Callable[[], Faults] = Faults, seed: int = 0
    ) -> None:
        self.server = server  # may be changed: it holds for the next connection
        self.choose = choose
        self.address: Address = ("127.0.0.1", 0)
        self.hits: Counter[str] = Counter()  # how often each kind of fault took place
        self.random = random.Random(seed)
        self._links: set[asyncio.Task[None]] = set()
        self._closed = False  # who was accepted at the last moment is cut
        self._listener: asyncio.Server

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = self._listener.sockets[0].getsockname()[:2]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        self._closed = True
        await self.settle()

    async def settle(self) -> None:
        """Cut every connection and have it gone, also on its way to the server."""
        for task in tuple(self._links):
            task.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:
            reset(writer)
            return
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        # A cancelled task would be an error to the listener.
        with contextlib.suppress(OSError, asyncio.CancelledError):
            there = await asyncio.open_connection(*self.server)
            await Link(self, (reader, writer), there, self.choose()).run()
        reset(writer)
        self._links.discard(task)


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Link:
    """One connection of a client, and the one to the server that it stands for."""

    def __init__(self, proxy: Proxy, client: Stream, server: Stream, faults: Faults) -> None:
        self._proxy = proxy
        self._faults = faults
        self._client, self._server = client, server
        self._deaf = ""  # the direction in which nothing arrives any more
        self._count = 0  # replies to lists
        self._line = b""  # the server's line that has no end yet

    async def run(self) -> None:
        """Carry bytes until the connection is over."""
        up = asyncio.create_task(self._carry(UP, self._client[0], self._server[1]))
        down = asyncio.create_task(self._carry(DOWN, self._server[0], self._client[1]))
        tasks = {up, down}
        if self._faults.ending:
            tasks.add(asyncio.create_task(self._end()))
        try:
            # Until one of them says that the connection is over.
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            if self._faults.linger and not self._server[1].is_closing():
                self._proxy.hits["lingered"] += 1
                await asyncio.sleep(self._faults.linger)
        finally:
            # First what cannot be interrupted: whoever ends the proxy may cancel this.
            for _, writer in (self._client, self._server):
                reset(writer)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry(
        self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        faults, rng = self._faults, self._proxy.random
        while data := await reader.read(CHUNK):
            if faults.latency or faults.jitter:
                await asyncio.sleep(faults.latency + rng.uniform(0, faults.jitter))
            if way == DOWN and faults.swallow:
                data = self._swallow(data)
            while data and self._deaf != way:
                size = rng.randint(1, faults.slice) if faults.slice else len(data)
                piece, data = data[:size], data[size:]
                writer.write(piece)
                await writer.drain()
                # What is written at once may arrive at once: the next piece is for the next turn.
                await asyncio.sleep(len(piece) / faults.rate if faults.rate else 0)
            if way == DOWN and self._count and self._count == faults.swallow:
                raise ConnectionResetError
        if self._deaf != way:
            with contextlib.suppress(OSError):
                writer.write_eof()

    def _swallow(self, data: bytes) -> bytes:
        """Give what still arrives: all before the reply that is lost."""
        kept = 0
        while (end := data.find(b"\n", kept) + 1) > 0:
            line, self._line = self._line + data[kept:end], b""
            if is_confirmation(line):
                self._count += 1
                if self._count == self._faults.swallow:
                    self._proxy.hits["swallowed"] += 1
                    return data[:kept]
            kept = end
        self._line += data[kept:]
        return data

    async def _end(self) -> None:
        faults = self._faults
        await asyncio.sleep(faults.after)
        way = f" {faults.way}" if faults.ending != "reset" else ""
        self._proxy.hits[faults.ending + way] += 1
        if faults.ending == "reset":
            raise ConnectionResetError
        self._deaf = faults.way
        if faults.ending == "half-close":
            writer = self._server[1] if faults.way == UP else self._client[1]
            with contextlib.suppress(OSError):
                writer.write_eof()


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection as a peer that crashed: by a reset."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
