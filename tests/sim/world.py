"""One simulated run: a seed makes users, phones, a network, a disk and a server, and lets them be.

The server is pushd's own, from its composition root down to SQLite; what is put in the place of
something real is the event loop, the transports, the threads of the store and of the password
hashes, the clocks, and the source of random bytes. After the steps all faults end; everybody
comes back, takes in what waits and looks things up; then the log is judged.
"""

import asyncio
import hashlib
import random
import secrets
import shutil
import sqlite3
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from pushd.clock import Clock
from pushd.config import (
    Auth,
    Config,
    Limits,
    Queue,
)
from pushd.config import (
    Server as ServerSettings,
)
from pushd.config import (
    Store as StoreSettings,
)
from pushd.connection import Connection
from pushd.listeners import Listeners
from pushd.passwords import Hasher
from pushd.server import Server
from pushd.session import Session
from pushd.store import FILE, Store
from tests.model.checker import Report, check
from tests.model.entries import Entry, Event
from tests.model.rights import Group
from tests.sim import steps
from tests.sim.disk import Disk, SimWorker
from tests.sim.loop import BEGIN, LIFE, Life, VirtualLoop
from tests.sim.net import Link
from tests.sim.phone import Phone
from tests.sim.points import ACTIVE, Points, install

WALL = 1_800_000_000_000  # ms since 1970 at the beginning
DAY = 86_400.0
PATIENCE = 300.0  # virtual seconds for everybody to come to rest at the end
NEWS = 10.0  # virtual seconds after which a connection has heard that its device is dead
# What a server says at `error` or above when a disk or a program beside it is the cause.
EXPECTED = ("the store failed", "the disk is full")


class SimClock(Clock):
    """The loop's time, and a wall clock that jumps."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.shift = 0.0  # of the wall clock, in seconds

    def now(self) -> float:
        """Give monotonic seconds."""
        return self._loop.time()

    def wall(self) -> int:
        """Give milliseconds since 1970."""
        return WALL + int((self._loop.time() - BEGIN + self.shift) * 1000)


class InstantHasher(Hasher):
    """Takes no time and no thread."""

    def __init__(self) -> None:
        self.cost, self._jobs = 4, 0

    def configure(self, cost: int, waiting: int) -> None:
        """Change nothing."""

    async def hash(self, password: bytes) -> bytes:
        """Hash in name only."""
        await asyncio.sleep(0)
        return b"$" + password

    async def check(self, password: bytes, stored: bytes | None) -> bool:
        """Compare."""
        await asyncio.sleep(0)
        return stored == b"$" + password

    def outdated(self, stored: bytes) -> bool:
        """Tell that it never is."""
        return False

    def close(self) -> None:
        """Close nothing."""


class SimServer(Server):
    """The server without sockets and threads."""

    def __init__(self, world: "World", life: Life, config: Config) -> None:
        super().__init__(config, world.clock)
        self._world, self._life = world, life

    async def _make_store(self) -> Store:
        kind: Any = partial(SimWorker, self._world.disk, self._life)
        return await Store.open(self.config, self.clock, kind)

    def _make_hasher(self) -> Hasher:
        return InstantHasher()

    async def _listen(self, listeners: Listeners) -> None:
        self.health.watch = lambda loop: None  # type: ignore[method-assign]

    async def _listen_for_control(self, loop: Any, service: Any) -> None:
        pass


@dataclass
class User:
    """A person: an account and its phones."""

    name: str
    phone: str
    password: str
    address: str
    id: str = ""  # the server's
    phones: list[Phone] = field(default_factory=list)
    friends: set[str] = field(default_factory=set)
    gaps: dict[str, int] = field(default_factory=dict)  # chats that gaps named, behind a msgId


@dataclass
class Outcome:
    """What one run came to."""

    seed: int
    digest: str  # of the log
    report: Report
    alarms: list[str]
    events: int  # frames
    seconds: float  # virtual
    client_hours: float
    faults: Counter[str]
    states: set[int]  # hashes of queue shapes
    entries: list[Entry]
    real: float  # seconds it took

    @property
    def violations(self) -> list[str]:
        """All that must not be."""
        return [*self.alarms, *self.report.violations]


class World:
    """One run."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = random.Random(seed)
        self.points = Points(random.Random(f"points {seed}"))
        self.loop = VirtualLoop()
        self.clock = SimClock(self.loop)
        self.disk = Disk(folder, random.Random(f"disk {seed}"), self.points)
        on = self.points.on
        self.disk.watched = on["power_cut"] or on["torn_commit"]
        self.disk.kill = self._killed
        self.points.disk, self.points.replayed = self.disk, self._replayed
        self.log: list[Any] = []
        self.alarms: list[str] = []
        self.faults: Counter[str] = Counter()
        self.states: set[int] = set()
        self.events = 0
        self.online = 0.0  # seconds of all connected phones together
        self.users: dict[str, User] = {}
        self.users_by_id: dict[str, User] = {}
        self.dying: set[str] = set()  # phones that somebody has tried to sign out
        self._dead: dict[int, float] = {}  # connections with a dead device, and since when
        self.groups: dict[str, tuple[Group, int]] = {}  # as events told them, up to a msgId
        self._names = 0
        self._links: dict[Link, None] = {}
        self._server: SimServer | None = None
        self._life: Life | None = None
        self._task: asyncio.Task[int] | None = None
        self._up = False  # it takes connections
        self._over = False  # it is not started any more
        self.config = self._settings()

    def _settings(self) -> Config:
        rng, on = self.rng, self.points.on
        limits: dict[str, Any] = {"devices": 100, "groups": 1000, "logins": 100_000}
        limits |= {"registers": 10_000, "wrong_push_ids": 10_000}
        store: dict[str, Any] = {"reserve": 65536, "readers": rng.randint(1, 2)}
        store["checkpoint_pages"] = rng.choice((8, 40, 200))
        queue = 10_000
        if on["small_windows"]:
            limits |= {"window_messages": rng.choice((1, 3, 10)), "inbox": rng.choice((1, 4096))}
            limits |= {"packet": rng.choice((300, 1000, 65536)), "unconfirmed": rng.choice((1, 50))}
            limits |= {"window_bytes": rng.choice((1000, 10_000, 1 << 20))}
            limits |= {"commit_queue": rng.choice((1, 20, 1000))}
            queue = rng.choice((5, 20, 60))
        if on["small_batches"]:
            store |= {"batch_rows": rng.choice((1, 4, 20)), "cache_accounts": rng.choice((1, 3))}
            store |= {"cache_pairs": rng.choice((1, 4)), "young_rows": rng.choice((1, 20))}
            store |= {"young_chats": rng.choice((1, 20)), "young_client_ids": rng.choice((1, 20))}
        return Config(
            server=ServerSettings(stop_seconds=3.0),
            auth=Auth(bcrypt_cost=4),
            limits=Limits(**limits),
            queue=Queue(messages=queue),
            store=StoreSettings(**store),
        )

    # --- the server -----------------------------------------------------------------------------

    def start(self) -> None:
        """Start the server; it takes connections once its store is open."""
        if self._life is not None or self._over:
            return
        self._life = life = Life()
        self._dead = {}
        self.disk.begin()
        config = self.config
        settings = ServerSettings(data=str(self.disk.folder), stop_seconds=3.0)
        config = type(config)(
            server=settings,
            auth=config.auth,
            limits=config.limits,
            queue=config.queue,
            store=config.store,
        )
        self._server = life.context.run(SimServer, self, life, config)
        for name in ("small_windows", "small_batches"):
            self.points.hit(name, 1.0)
        run = self._server.run(ready=lambda addresses: self._ready(life), signals=False)
        self._task = life.context.run(self.loop.create_task, run)
        self._task.add_done_callback(partial(self._ended, life))
        if self.points.hit("crash_in_start", 0.3):
            self.loop.call_later(self.rng.uniform(0, 0.02), self.kill)

    def _ready(self, life: Life) -> None:
        if life is self._life:
            self._up = True

    def _ended(self, life: Life, task: "asyncio.Task[int]") -> None:
        """Start the server again when it has ended by itself."""
        if task.cancelled() or life.dead:
            return
        problem = task.exception()
        if problem is not None and not self.disk.full:
            self.alarm(f"I8: the server ended: {problem!r}")
        self.faults["ended with 1" if problem is not None or task.result() else "stopped"] += 1
        self._close_life(politely=True)
        self.disk.image(power=False)
        self._start_later()

    def _start_later(self) -> None:
        self.disk.full = False
        self.loop.call_later(self.rng.choice((0.1, 1.0, 5.0)) * self.rng.random(), self.start)

    def kill(self, *, power: bool = False) -> None:
        """End the server's process, or its machine, now."""
        if self._life is None:
            return
        self.disk.image(power=power)
        self._killed(power)

    def _killed(self, power: bool) -> None:
        """Take in that the process is gone; the disk has its image."""
        self.faults["power cut" if power else "kill"] += 1
        self._close_life(politely=not power and self.rng.random() < 0.5)
        self._start_later()

    def _close_life(self, *, politely: bool) -> None:
        life, self._life = self._life, None
        self._up = False
        assert life is not None, "a server that runs has a life"
        for link in tuple(self._links):
            link.server_died(politely=politely)
        self._links.clear()
        life.kill()
        # Not now: one of its statements may be running.
        self.loop.call_later(0.0, self._sweep_up, life)

    def _sweep_up(self, life: Life) -> None:
        for db in life.workers:
            db.close()
        self.disk.drop_old()

    def stop(self) -> None:
        """Ask the server to stop."""
        if self._up and self._server is not None:
            self._server.stop()

    def connect(self, phone: Phone) -> Link | None:
        """Connect a phone; None while nobody listens."""
        life, server = self._life, self._server
        if not self._up or life is None or server is None or server._stop.is_set():
            return None
        link = Link(self.loop, self.rng, self.points, phone, life, phone.user.address)
        self._links[link] = None
        link.connect(Connection(server.service))
        return link

    def _replayed(self, session: Session, point: str) -> None:
        """Break or take over the connection of a device whose queue is being read."""
        for phone in self.phones():
            if phone.push_id and phone.push_id == session.push_id:
                if point == "cut_during_replay":
                    self.loop.call_soon(phone.drop, "reset")
                else:
                    self.loop.call_soon(phone.connect)

    # --- words ----------------------------------------------------------------------------------

    def phones(self) -> list[Phone]:
        """Give all phones that may be alive."""
        return [phone for user in self.users.values() for phone in user.phones]

    def name_phone(self, user: User) -> str:
        """Name a device that there was never before."""
        self._names += 1
        return f"{user.name}.{self._names}"

    def bound(self, phone: Phone) -> None:
        """Note that a phone's device is bound."""

    def alarm(self, text: str) -> None:
        """Note what must never happen."""
        if len(self.alarms) < 50:
            self.alarms.append(text if text[:1] == "I" else f"I8: {text}")

    def check_dead(self, phone: Phone, reply: Any) -> None:
        """Hear that a device is dead; somebody must have tried to sign it out."""
        if phone.name not in self.dying:
            self.alarm(f"I1: {phone.name} is dead and nobody signed it out: {reply}")

    def user_name(self, number: str) -> str:
        """Give the name of a user by the server's id; groups and the server keep theirs."""
        user = self.users_by_id.get(number)
        return number if user is None else user.name

    def event(self, user: User, fields: dict[str, Any]) -> Event:
        """Read an event as one of a log; of a gap as this user sees it."""
        name, users, value = fields["name"], fields.get("userIds", ()), ""
        if "userId" in fields:
            users = (fields["userId"],)
        chats: list[tuple[str, int]] = []
        if name == "gap":
            value = str(fields["seqFrom"])
            chats = [
                (self._chat_name(user, chat["chatId"]), int(chat["after"]))
                for chat in fields["chats"]
            ]
        elif name == "group_updated" and "muteAll" in fields["changed"]:
            value = "muted" if fields["changed"]["muteAll"] else "unmuted"
        elif name in ("role", "muted", "recalled"):
            value = str(fields[{"role": "role", "muted": "seconds", "recalled": "msgId"}[name]])
        names = tuple(self.user_name(number) for number in users)
        return Event(name, names, self.user_name(fields.get("by", "")), value, tuple(chats))

    def _chat_name(self, user: User, chat: str) -> str:
        if "-" not in chat:
            return "" if chat == "system" else chat
        one, other = chat.split("-")
        return self.user_name(other if one == user.id else one)

    def saw(self, user: User, fields: tuple[Any, ...]) -> None:
        """Learn what events tell of groups."""
        number, _, to, _, time, event = fields
        if event is None or not to.startswith("g"):
            return
        group, upto = self.groups.get(to, (Group(), 0))
        if number > upto:
            group.apply(number, event, time)
            self.groups[to] = group, number

    # --- the run --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live."""
        self.points.quiet = True
        self.start()
        await steps.set_up(self)
        self.points.quiet = False
        await steps.live(self)
        self.points.quiet = True
        await self._end()

    async def until(self, condition: Callable[[], bool], patience: float = PATIENCE) -> bool:
        """Wait for something; False if it does not come."""
        deadline = self.loop.time() + patience
        while not condition():
            if self.loop.time() > deadline:
                return False
            await self.pass_time(0.2)
        return True

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, and note what is seen at its end."""
        self.online += seconds * sum(phone.on for phone in self.phones())
        await asyncio.sleep(seconds)

    def look(self) -> None:
        """Note the shape of the server's queues, and look whether all of them are alive."""
        if not self._up or self._server is None:
            return
        shapes = []
        started = self._server.service.ctx.hub.started()
        self._look_for_dead(started)
        for session in started:
            box = session.outbox
            if box is not None:
                pending, flight = box.held
                sizes = [min(n, 4).bit_length() for n in (pending, flight, box.newest - box.last)]
                shapes.append((box.lagging, box.reading, *sizes))
        waiting = min(self._server.service.ctx.store.writer.waiting, 8).bit_length()
        self.states.add(hash((waiting, *sorted(shapes))))

    def _look_for_dead(self, started: list[Session]) -> None:
        """Find connections that go on with a device that is dead: nothing comes to them."""
        assert self._life is not None, "a server that is up has a life"
        now = self.loop.time()
        try:
            alive = {row[0] for row in self._life.workers[-1].execute("SELECT id FROM device")}
        except sqlite3.ProgrammingError:
            return  # it is stopping, and has closed its store
        dead = [session for session in started if session.device not in alive]
        self._dead = {each.number: self._dead.get(each.number, now) for each in dead}
        for number, since in self._dead.items():
            if now > since + NEWS:
                self.alarm(f"I1: connection {number} was not told that its device is dead")

    async def _end(self) -> None:
        """End all faults, have everybody come back, and look everything up."""
        self.disk.full, self.disk.busy = False, 0
        await self.until(lambda: self._up)
        await steps.settle(self)
        self._over = True
        self.stop()
        task = self._task
        if task is not None and not await self.until(task.done, 60.0):
            self.alarm("I8: the server does not stop")

    def check_store(self) -> None:
        """Look whether the store is whole."""
        with closing(sqlite3.connect(self.disk.folder / FILE)) as db:
            try:
                [found] = db.execute("PRAGMA integrity_check").fetchone()
                if found != "ok":
                    self.alarm(f"I8: integrity_check: {found}")
                for row in db.execute("PRAGMA foreign_key_check"):
                    self.alarm(f"I8: foreign_key_check: {row}")
            except sqlite3.DatabaseError as problem:
                self.alarm(f"I8: the store cannot be read: {problem}")

    def heard(self, logger: Any, method: str, fields: dict[str, Any]) -> Any:
        """Take a line of the server's log."""
        life = LIFE.get()
        if life is None or not life.dead:
            bad = method in ("error", "critical", "exception")
            if bad and not fields["event"].startswith(EXPECTED):
                problem = fields.get("exc_info")
                if "injected" in str(problem):
                    raise structlog.DropEvent
                self.alarm(f"I8: the server logs {fields} {problem!r}")
        raise structlog.DropEvent


@contextmanager
def _own_randomness(world: World) -> Iterator[None]:
    """Let the seed give the random bytes, and the run hear the log."""
    real, own = secrets.token_bytes, random.Random(world.rng.random())
    settings = structlog.get_config()
    secrets.token_bytes = lambda count=32: own.randbytes(count or 32)
    structlog.configure(processors=[world.heard], cache_logger_on_first_use=False)
    ACTIVE.append(world.points)
    try:
        yield
    finally:
        ACTIVE.remove(world.points)
        structlog.configure(**settings)
        secrets.token_bytes = real


def _root() -> str | None:
    """Give a folder in memory, where a sync costs nothing, if there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def run(seed: int) -> Outcome:
    """Run one seed and judge it."""
    install()
    begin = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="pushd-sim-", dir=_root()))
    world = World(seed, folder)
    try:
        live_in(world, world.run())
        world.check_store()
    finally:
        shutil.rmtree(folder)
    return _outcome(seed, world, begin)


def live_in(world: World, life: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in a world, then end all that is left there."""
    with _own_randomness(world), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            world.loop.run_until_complete(life)
        finally:
            _bury(world)


def _bury(world: World) -> None:
    """End what still runs."""
    world._over = True
    if world._life is not None:
        world._close_life(politely=False)
    loop = world.loop
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    loop.run_until_complete(asyncio.sleep(1.0))
    loop.close()


def _outcome(seed: int, world: World, begin: float) -> Outcome:
    report = check(world.log)
    digest = hashlib.sha256()
    for entry in world.log:
        digest.update(repr(entry).encode())
    return Outcome(
        seed,
        digest.hexdigest()[:16],
        report,
        world.alarms,
        world.events,
        world.loop.time() - BEGIN,
        world.online / 3600,
        world.faults + world.points.hits,
        world.states,
        world.log,
        time.monotonic() - begin,
    )
