"""A whole server in one thread and without a socket: bytes in, bytes out, as fast as they go.

Everything between the transport and the database is the real thing: connections, sessions, hub,
handlers, writer, journal, verbs. Only what would wait is replaced: transports are lists, the
database lies in memory and is used where it is called, passwords are hashed with one round of
SHA-256, files lie in memory where the system has a folder for that, and time stands still until it
is told to move.

    with World() as world:
        frames = world.exchange([b'{"cmd":"pi', b'ng"}\\n'])     # the replies, decoded

`exchange` is one connection from its beginning to its end, and judges what came back: see
`Broken`. `audit` looks whether anything of the connections that are gone was kept.
"""

import asyncio
import contextlib
import hashlib
import itertools
import json
import logging
import os
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import structlog

from pushd import config, media
from pushd import store as store_module
from pushd.clock import Clock
from pushd.connection import Connection
from pushd.control import Running
from pushd.health import Health
from pushd.metrics import Sources
from pushd.passwords import Hasher
from pushd.reload import spread
from pushd.server import Server
from pushd.service import Service
from pushd.status import Status
from pushd.store import Store, engine
from pushd.store.engine import Lock, Worker

R = TypeVar("R")
Frame = dict[str, Any]

PASSWORD = "Zebra-7731"
PHONES = ("13800000001", "13800000002", "13800000003", "13800000004")
# How long one connection may take, in seconds; what takes longer hangs.
PATIENCE = 5.0
# Seconds of the server's time from one connection to the next.
STEP = 30.0
CODES = frozenset(int(status) for status in Status) - {int(Status.INTERNAL)}
# What would write where the input says, end the server, or change what all others see.
LEFT_OUT = ("backup", "stop", "reload", "check", "loglevel")
MEMORY = "/dev/shm"  # where files cost no disk


# Tokens that making a world takes, at most.
TOKENS = 100


class Seen(NamedTuple):
    """A world as it was once its people had settled, for the next one."""

    database: bytes
    files: dict[str, bytes]
    moved: float
    known: Frame
    foreign: Frame


_seen: dict[str, Seen] = {}


class Broken(AssertionError):
    """The server did what it must never do, whatever it is sent."""


class Still(Clock):
    """A clock that stands until it is moved; who sleeps moves it."""

    def __init__(self) -> None:
        self.moved = 0.0

    def now(self) -> float:
        """Give monotonic seconds."""
        return 1000.0 + self.moved

    def wall(self) -> int:
        """Give milliseconds since 1970."""
        return 1_700_000_000_000 + int(self.moved * 1000)

    async def sleep(self, seconds: float) -> None:
        """Let the time pass at once."""
        self.moved += seconds


class Here(engine.Worker):
    """A connection to the database that is used where it is called, not in a thread."""

    _connection = None  # what aiosqlite looks at when it goes

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db

    async def run(self, function: Callable[..., R], *args: Any, **kw: Any) -> R:
        """Run a function on the connection."""
        return function(self.db, *args, **kw)

    async def close(self) -> None:
        """Leave the connection to whoever made it."""


class Quick(Hasher):
    """Hashes that cost nothing: bcrypt is not what is looked at here."""

    async def hash(self, password: bytes) -> bytes:
        """Return a new hash."""
        return hashlib.sha256(password).digest()

    async def check(self, password: bytes, stored: bytes | None) -> bool:
        """Tell whether the password is the stored one."""
        return hashlib.sha256(password).digest() == stored

    def outdated(self, stored: bytes) -> bool:
        """Tell whether a hash has another cost than new ones: never."""
        return False


class Files(media.Media):
    """Files that are written where they are asked for."""

    async def _run(self, work: Callable[..., R], *args: Any, **kw: Any) -> R:
        return media._work(partial(work, *args, **kw))


class Transport(asyncio.Transport):
    """The server's side of a connection that is only a list of bytes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: Connection) -> None:
        super().__init__()
        self.out: list[bytes] = []
        self.reading = True
        self.ended: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._protocol = protocol
        self._closing = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Give the peer's address."""
        return ("192.0.2.7", 4000) if name == "peername" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing: whatever is written is taken."""

    def get_write_buffer_size(self) -> int:
        """Tell that nothing waits."""
        return 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take what the server says."""
        if not self._closing:
            self.out.append(bytes(data))

    def write_eof(self) -> None:
        """Take the server's end, and close as a client does that has read it."""
        self.close()

    def is_closing(self) -> bool:
        """Tell whether the end was begun."""
        return self._closing

    def pause_reading(self) -> None:
        """Hold back what the client says."""
        self.reading = False

    def resume_reading(self) -> None:
        """Go on with it."""
        self.reading = True

    def close(self) -> None:
        """End the connection in the next turn."""
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._lose)

    def abort(self) -> None:
        """End the connection."""
        self.close()

    def _lose(self) -> None:
        self._protocol.connection_lost(None)
        self.ended.set_result(None)


class Operator(Connection):
    """A connection of the control socket, without the look at who is at the other end."""

    __slots__ = ()

    operator = True


class World:
    """A server with four people: the first is friends with the second, the others are not."""

    def __init__(self, **limits: Any) -> None:
        self._limits = {"per_address": False, "registers": 0, "friend_requests": 0, **limits}
        self.errors: list[str] = []  # what was logged as an error, and what nobody caught
        self.known: Frame = {}  # ids of what there is, for the seeds
        self.foreign: Frame = {}  # ids of what only the third and the fourth know

    def __enter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        folder = MEMORY if os.access(MEMORY, os.W_OK) else None
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        self.loop = asyncio.new_event_loop()
        self._stack.callback(self.loop.close)
        self.loop.set_exception_handler(self._uncaught)
        _configure_log(self.errors)
        self.run(self._open())
        return self

    def __exit__(self, *exc: object) -> None:
        self.run(self._close())
        self._stack.close()

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Run something on the world's loop."""
        return self.loop.run_until_complete(work)

    async def _open(self) -> None:
        self.clock = Still()
        settings = config.Config(
            server=config.Server(data=str(self.folder), loop="asyncio"),
            limits=config.Limits(**self._limits),
            store=config.Store(reserve=0),
        )
        self.db = sqlite3.connect(":memory:", isolation_level=None, cached_statements=512)
        seen = _seen.get(repr(self._limits))
        if seen is None:
            engine.migrate(self.db)
        else:
            self.db.deserialize(seen.database)
        self.db.execute("PRAGMA foreign_keys=ON")
        here = Here(self.db)
        self.store = await _store(self.folder, here, settings, self.clock)
        hasher = Quick(4, 1, 64)
        self.media = Files(self.folder, picture_pixels=settings.media.picture_pixels, threads=1)
        self.media.open()
        self._stack.callback(self.media.close)
        self._stack.callback(hasher.close)
        ctx = Server(settings, self.clock)._context(self.store, hasher, self.media)
        tokens = itertools.count(0 if seen is None else TOKENS)
        ctx.token = (f"token-{number:018}" for number in tokens).__next__
        ctx.table = {name: row for name, row in ctx.table.items() if name not in LEFT_OUT}
        self.service = Service(ctx, self.loop)
        spread(ctx, self.service, settings)
        self.store.start(ctx.hub.deliver)
        self.health = Health(self.service, refresh=lambda: 1.0)
        sources = Sources(self.service, self.health, {})
        ctx.control = Running(sources, self.clock, lambda: None)
        if seen is None:
            await self._settle()
            await self._rest()
            files = {path: path.read_bytes() for path in self.folder.glob("media/??/*")}
            named = {str(path.relative_to(self.folder)): data for path, data in files.items()}
            seen = Seen(self.db.serialize(), named, self.clock.moved, self.known, self.foreign)
            _seen[repr(self._limits)] = seen
        else:
            for name, data in seen.files.items():
                (self.folder / name).parent.mkdir(exist_ok=True)
                (self.folder / name).write_bytes(data)
            self.clock.moved, self.known, self.foreign = seen.moved, seen.known, seen.foreign

    async def _settle(self) -> None:
        """Let four people in; make friends and groups, and say something in each."""
        a, b, c, d = [await self._person(phone) for phone in PHONES]
        for one, other in ((a, b), (c, d)):
            await one.ok(cmd="add_friend", userId=other.id)
            await other.ok(cmd="accept_friend", userId=one.id)
        groups = [
            await one.ok(cmd="create_group", name=name, kind="group", userIds=[other.id])
            for one, other, name in ((a, b, "ours"), (c, d, "hidden"))
        ]
        said = [await one.say(other.id, text) for one, other, text in ((a, b, "x"), (c, d, "y"))]
        grouped = await c.say("", "z", chatId=groups[1]["id"], type="7")
        file = await a.ok(cmd="save_file", name="a.txt", content="aGVsbG8=")
        secret = await c.ok(cmd="save_file", name="c.txt", content="c2VjcmV0")
        devices = [(await one.ok(cmd="whoami"))["deviceId"] for one in (a, c)]
        self.known = {
            "userId": b.id,
            "phone": b.phone,
            "groupId": groups[0]["id"],
            "chatId": said[0]["chatId"],
            "msgId": said[0]["msgId"],
            "path": file["path"],
            "deviceId": devices[0],
            "pushId": a.push_id,
        }
        self.foreign = {
            "userId": c.id,
            "groupId": groups[1]["id"],
            "chatId": said[1]["chatId"],
            "msgId": said[1]["msgId"],
            "inGroup": grouped["msgId"],
            "path": secret["path"],
            "deviceId": devices[1],
            "code": "0123456789",
        }
        for one in (a, b, c, d):
            await one.leave()

    async def _person(self, phone: str) -> "Person":
        person = Person(self, phone)
        account = await person.ok(cmd="register", phone=phone, password=PASSWORD)
        person.id = account["user"]["id"]
        [reply] = await person.ask({"message": "start", "pushId": ""})
        person.push_id = reply["pushId"]
        return person

    async def _close(self) -> None:
        for peer in tuple(self.service.connections):
            peer.abort()
        await self._rest()
        self.health.close()
        await self.store.close()
        self.db.close()

    async def _rest(self) -> None:
        """Wait until nothing is going on any more."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.sleep(0)
            while tasks := tuple(self.service._tasks):
                await asyncio.wait(tasks)
            await self.store.writer.barrier()

    # --- what is looked at ------------------------------------------------------------------

    def connect(self, *, operator: bool = False) -> tuple[Connection, Transport]:
        """Open a connection; call it within the loop."""
        connection = (Operator if operator else Connection)(self.service)
        transport = Transport(self.loop, connection)
        connection.connection_made(transport)
        return connection, transport

    def exchange(self, pieces: Iterable[bytes], *, operator: bool = False) -> list[Frame]:
        """Send pieces of bytes on a new connection, then its end; give all that it answers.

        Raises Broken for what must not be, and TimeoutError for a hang.
        """
        self.clock.moved += STEP
        out = self.run(self._exchange(pieces, operator=operator))
        if self.errors:
            raise Broken(self.errors[0])
        return judged(out)

    async def _exchange(self, pieces: Iterable[bytes], *, operator: bool) -> bytes:
        connection, transport = self.connect(operator=operator)
        async with asyncio.timeout(PATIENCE):
            for piece in pieces:
                while not (transport.reading or transport.is_closing()):  # noqa: ASYNC110
                    await asyncio.sleep(0)
                if transport.is_closing():
                    break
                connection.data_received(piece)
            if not transport.is_closing():
                connection.eof_received()
            await transport.ended
            while tasks := tuple(self.service._tasks):
                await asyncio.wait(tasks)
        return b"".join(transport.out)

    def audit(self) -> None:
        """Require that nothing was kept of connections that are gone.

        Raises Broken.
        """
        self.run(self._rest())
        service, ctx = self.service, self.service.ctx
        kept = {
            "connections": len(service.connections),
            "addresses": len(service._per_address),
            "tasks": len(service._tasks),
            "turns": len(ctx.turns),
            "sessions": ctx.hub.sessions,
            "devices": len(ctx.hub._devices),
            "watchers": len(ctx.hub._watchers),
            "waiting": self.store.writer.waiting,
            "parts being written": len(list((self.folder / "media" / "tmp").iterdir())),
        }
        left = {name: count for name, count in kept.items() if count}
        if left:
            raise Broken(f"left behind: {left}")
        problem = self.db.execute("PRAGMA integrity_check").fetchone()[0]
        if problem != "ok" or self.db.execute("PRAGMA foreign_key_check").fetchone():
            raise Broken(f"the store is not whole: {problem}")

    def _uncaught(self, _loop: object, context: dict[str, Any]) -> None:
        self.errors.append(f"{context.get('message')}: {context.get('exception')!r}")


class Person:
    """Somebody who lives in the world while it is made."""

    def __init__(self, world: World, phone: str) -> None:
        self.phone = phone
        self.id = ""
        self.push_id = ""
        self._connection, self._transport = world.connect()
        self._seen = 0

    async def ask(self, fields: Frame) -> list[Frame]:
        """Send one frame, and give the frames that come with its answer."""
        self._transport.out.clear()
        self._connection.data_received(json.dumps(fields).encode() + b"\n")
        while not (found := [each for each in self._frames() if "status" in each]):  # noqa: ASYNC110
            await asyncio.sleep(0)
        return found

    def _frames(self) -> list[Frame]:
        frames = [json.loads(line) for line in b"".join(self._transport.out).splitlines()]
        return [each for each in frames if isinstance(each["message"], str)]

    async def ok(self, **fields: Any) -> Any:
        """Run a command that must succeed, and give its result."""
        [reply] = await self.ask(fields)
        assert reply["status"] == 1, reply
        return reply["result"]

    async def say(self, to: str, words: str, **fields: Any) -> Frame:
        """Send one text, and give its row."""
        info = [{"category": "0", "content": words}]
        message = {"toId": to, "type": "1", "info": info, **fields}
        [reply] = await self.ask({"message": [message]})
        assert reply["status"] == 1, reply
        row: Frame = reply["result"][0]
        return row

    async def leave(self) -> None:
        """End the connection, with nothing acked."""
        self._connection.eof_received()
        await self._transport.ended


def judged(out: bytes) -> list[Frame]:
    """Decode what the server said; raises Broken for what no server may say."""
    if not out:
        return []
    if not out.endswith(b"\n"):
        raise Broken(f"half a line at the end: {out[-80:]!r}")
    return [_judge(line) for line in out[:-1].split(b"\n")]


def _judge(line: bytes) -> Frame:
    try:
        frame: Frame = json.loads(line.decode())
    except ValueError:
        raise Broken(f"a line that is no JSON: {line[:200]!r}") from None
    if not isinstance(frame, dict) or frame.get("status") not in CODES:
        raise Broken(f"a status that is not declared: {line[:200]!r}")
    if any(mark in line.decode() for mark in "\u2028\u2029"):
        raise Broken(f"a line separator that is not escaped: {line[:200]!r}")
    message = frame.get("message")
    refused = frame["status"] not in (0, 1)
    if refused and (not isinstance(message, str) or message in ("", "ok")):
        raise Broken(f"a refusal without a text: {line[:200]!r}")
    if frame["status"] == Status.BAD_FIELD and not frame.get("field"):
        raise Broken(f"a bad field without a name: {line[:200]!r}")
    return frame


async def _store(folder: Path, here: Here, settings: config.Config, clock: Clock) -> Store:
    """Make a store on one connection, as `Store.open` makes one on several."""

    async def open_worker(*_: object, **__: object) -> Here:
        return here

    names = ("open_writer", "open_reader")
    before: list[Callable[..., Awaitable[Any]]] = [getattr(store_module, name) for name in names]
    for name in names:
        setattr(store_module, name, open_worker)
    try:
        return await Store._open(folder, Lock(folder), [], settings, clock, Worker)
    finally:
        for name, function in zip(names, before, strict=True):
            setattr(store_module, name, function)


def _configure_log(errors: list[str]) -> None:
    """Keep errors, and drop everything else that is logged."""

    def take(_logger: object, name: str, event: Frame) -> Frame:
        if name in ("error", "critical", "exception"):
            problem = event.get("exc_info")
            errors.append(f"{event.get('event')}: {problem!r} {event.get('where', '')}")
        raise structlog.DropEvent

    structlog.configure(
        processors=[take],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        cache_logger_on_first_use=False,
    )


def pieces_of(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """Cut bytes at these places."""
    places = sorted({cut for cut in cuts if 0 < cut < len(data)})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
