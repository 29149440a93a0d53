"""A small scripted server for the tests of the client: real sockets, one device, no store.

It keeps as much of the contract as a client can tell: replies in order, message lists stored
once per `clientId`, a queue that is delivered again until it is acked. Everything else is told
to it by verbs: `drop_replies()`, `cut()`, `refuse("restart", 4290, retryAfter=30)`. What it
received stands in `received`, as (kind, frame): the kind is the command's name, or `start`,
`restart`, `list`, `ok`, `ack`, `heartbeat`.
"""

import asyncio
import contextlib
import heapq
import itertools
import json
from collections.abc import Callable
from typing import Any, Self, cast

Frame = dict[str, Any]

# How long a test waits before it fails, in seconds.
PATIENCE = 10.0

ACCOUNT = {"user": {"id": "10001", "username": "alice"}, "account": "18870742138", "isBind": True}


def message(number: int, content: str = "hi", **fields: Any) -> Frame:
    """Make a message as the server delivers it, from 10002 to 10001."""
    return {
        "chatId": "10001-10002",
        "fromId": "10002",
        "toId": "10001",
        "type": "1",
        "info": [{"category": "0", "content": content}],
        "createTime": "2018-11-14T21:40:56",
        "time": 1542231656000,
        "msgId": str(number),
        **fields,
    }


class FakeServer:
    """Serve on a free port of loopback while the context lasts."""

    def __init__(self) -> None:
        self.received: list[tuple[str, Frame]] = []  # every frame, of all connections
        self.stored: list[Frame] = []  # accepted messages, each clientId once
        self.unacked: list[Frame] = []  # the device's queue
        self.results: dict[str, Any] = {"login": ACCOUNT, "register": ACCOUNT}
        self.push_ids = {"known"}  # those that `restart` accepts
        self.epoch = "e1"
        self.connections = 0  # accepted so far
        self.port = 0
        self._refusals: dict[str, list[Frame]] = {}
        self._ids: dict[str, str] = {}  # clientId to msgId
        self._seq = itertools.count(1)
        self._live: list[_Connection] = []
        self._refused_connections = 0
        self._dropping = False
        self._holding = False
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        self.cut()
        await self.until(lambda: not self._live)

    # What tests wait for

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; it is looked at whenever anything happens here."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def frames(self, kind: str) -> list[Frame]:
        """Give the frames of a kind that came so far."""
        return [frame for name, frame in self.received if name == kind]

    def acks(self) -> list[int]:
        """Give the seqs that were acked so far."""
        return [frame["seq"] for frame in self.frames("ok")]

    async def wait_received(self, kind: str, count: int = 1) -> list[Frame]:
        """Wait for so many frames of a kind, and give them."""
        await self.until(lambda: len(self.frames(kind)) >= count)
        return self.frames(kind)

    # What tests make it do

    def answer(self, cmd: str, result: Any, **more: Any) -> None:
        """Answer a command with a result; a function is called with the frame."""
        self.results[cmd] = result if callable(result) else (lambda _: {"result": result, **more})

    def refuse(self, kind: str, status: int, text: str = "refused", **more: Any) -> None:
        """Refuse the next frame of a kind; called twice, the next two."""
        refusal = {"status": status, "message": text, **more}
        self._refusals.setdefault(kind, []).append(refusal)

    def refuse_connections(self, count: int) -> None:
        """Hang up on so many connections as soon as they are made."""
        self._refused_connections = count

    def drop_replies(self) -> None:
        """Serve, but let the replies get lost from now on, on the connections there are."""
        for connection in self._live:
            connection.mute = True

    def hold_replies(self) -> None:
        """Keep the replies back from now on."""
        self._holding = True

    def release_replies(self) -> None:
        """Send what was kept back, and what is due from now on."""
        self._holding = False
        for connection in self._live:
            connection.release()

    def cut(self) -> None:
        """Reset all connections."""
        for connection in self._live:
            connection.transport.abort()

    def say(self, frame: Frame | bytes) -> None:
        """Send a frame, or any bytes, on all connections."""
        data = frame if isinstance(frame, bytes) else json.dumps(frame).encode() + b"\n"
        for connection in self._live:
            connection.transport.write(data)

    def deliver(self, *messages: Frame) -> None:
        """Queue messages and send them in one packet."""
        batch = [{**each, "seq": next(self._seq)} for each in messages]
        self.unacked += batch
        self.say({"status": 1, "pushId": "known", "message": batch})

    def shut_down(self, retry_after: int) -> None:
        """Say the last words of a server that restarts, and hang up."""
        event = {"name": "shutdown"}
        self._bid_farewell(5030, "restarting", event, retryAfter=retry_after)

    def replace(self) -> None:
        """Tell that the device came up elsewhere, and hang up."""
        self._bid_farewell(11000, "replaced by another connection", {"name": "replaced"})

    def sign_out(self) -> None:
        """Tell that the device was signed out, and hang up."""
        self.push_ids.clear()
        self._bid_farewell(11001, "signed out", {"name": "signed_out"})

    def restore(self, epoch: str) -> None:
        """Be another store from now on: its seqs start anew."""
        self.epoch = epoch
        self.unacked.clear()
        self._seq = itertools.count(1)

    def _bid_farewell(self, status: int, text: str, event: Frame, **more: Any) -> None:
        self.say({"status": status, "pushId": "", "message": text, "event": event, **more})
        for connection in self._live:
            connection.transport.close()

    # Serving

    def joined(self, connection: "_Connection") -> None:
        self.connections += 1
        self._live.append(connection)
        if self._refused_connections:
            self._refused_connections -= 1
            connection.transport.abort()
        self._changed.set()

    def left(self, connection: "_Connection") -> None:
        self._live.remove(connection)
        self._changed.set()

    def serve(self, line: bytes) -> list[Frame]:
        """Take a line and give the frames that answer it."""
        frame = json.loads(line)
        kind = _kind(frame)
        self.received.append((kind, frame))
        self._changed.set()
        replies = self._refused(kind) or self._served(kind, frame)
        named = {name: frame[name] for name in ("id", "cmd") if name in frame}
        return [replies[0] | named, *replies[1:]] if replies else []

    def _refused(self, kind: str) -> list[Frame]:
        refusals = self._refusals.get(kind)
        return [refusals.pop(0)] if refusals else []

    def _served(self, kind: str, frame: Frame) -> list[Frame]:
        match kind:
            case "ok":
                self.unacked = [each for each in self.unacked if each["seq"] > frame["seq"]]
                return []
            case "ack":
                return []
            case "heartbeat":
                return [{"status": 1, "message": ""}]
            case "list":
                return [{"status": 1, "message": "ok", "result": self._store(frame["message"])}]
            case "start" | "restart":
                return self._bind(kind, frame)
        return [{"status": 1, "message": "ok", "date": "", **self._result(kind, frame)}]

    def _store(self, messages: list[Frame]) -> list[Frame]:
        for each in messages:
            if each["clientId"] not in self._ids:
                self.stored.append(each)
                self._ids[each["clientId"]] = str(len(self.stored))
        return [{"msgId": self._ids[each["clientId"]], "chatId": "c"} for each in messages]

    def _bind(self, kind: str, frame: Frame) -> list[Frame]:
        if kind == "restart" and frame["pushId"] not in self.push_ids:
            return [{"status": 11001, "pushId": "", "message": "log in first"}]
        reply = {
            "status": 1,
            "pushId": "known",
            "message": "ok",
            "heartbeat": frame["heartbeat"],
            "userId": "10001",
            "queued": len(self.unacked),
            "epoch": self.epoch,
        }
        if not self.unacked:
            return [reply]
        return [reply, {"status": 1, "pushId": "known", "message": self.unacked}]

    def _result(self, cmd: str, frame: Frame) -> Frame:
        result = self.results.get(cmd, {})
        if cmd == "ping":
            result = {"text": frame.get("text", "")}
        if callable(result):
            answer: Frame = result(frame)
            return answer
        return {"result": result}

    @property
    def holding(self) -> bool:
        return self._holding


class _Connection(asyncio.Protocol):
    """One connection of the server; lines in, replies out."""

    def __init__(self, server: FakeServer) -> None:
        self._server = server
        self._buffer = b""
        self._kept: list[bytes] = []  # replies that are held back
        self.mute = False  # replies get lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._server.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.left(self)

    def data_received(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in filter(None, lines):
            for reply in self._server.serve(line):
                self._kept.append(json.dumps(reply).encode() + b"\n")
            self.release()
            if b'"quit"' in line:
                self.transport.close()

    def release(self) -> None:
        if self._server.holding:
            return
        kept, self._kept = self._kept, []
        if kept and not self.mute:
            self.transport.write(b"".join(kept))


def _kind(frame: Frame) -> str:
    if "cmd" in frame:
        return str(frame["cmd"])
    content = frame.get("message")
    if isinstance(content, list):
        return "list"
    if isinstance(content, dict):
        return "ack"
    return str(content) if content else "heartbeat"


class VirtualTime:
    """A clock that only tests move, and the sleep that belongs to it.

    A sleep of at most `instant` seconds returns at once; `naps` lists those. Longer ones last
    until `advance`.
    """

    def __init__(self, instant: float = 200.0) -> None:
        self.now = 0.0
        self.naps: list[float] = []
        self._instant = instant
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._ids = itertools.count()
        self._fell_asleep = asyncio.Event()

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        if seconds <= self._instant:
            self.naps.append(seconds)
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._ids), future))
        self._fell_asleep.set()
        await future

    async def wait_sleeper(self) -> None:
        """Wait until somebody sleeps."""
        async with asyncio.timeout(PATIENCE):
            while not any(not future.done() for _, _, future in self._sleepers):
                self._fell_asleep.clear()
                await self._fell_asleep.wait()

    def advance(self, seconds: float) -> None:
        """Let time pass, and wake who is due."""
        self.now += seconds
        while self._sleepers and self._sleepers[0][0] <= self.now:
            _, _, future = heapq.heappop(self._sleepers)
            with contextlib.suppress(asyncio.InvalidStateError):
                future.set_result(None)
