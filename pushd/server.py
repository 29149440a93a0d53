"""The composition root: store, hub and commands wired together, listeners, signals, shutdown.

Shutting down goes in stages: no new connections and 5030 to new work; what was handed in is
committed and answered and outboxes are written, as far as peers take them; every connection gets
its last frame; the store is closed. Peers that hang are cut when the time is up.
"""

import asyncio
import errno
import gc
import os
import resource
import secrets
import signal
import socket
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import structlog

from . import __version__, handlers
from .clock import Clock, Dates
from .commands import Context
from .config import Config, parse_address
from .connection import Connection
from .dump import dump
from .errors import StoreError, StoreFailed
from .handlers.file import sweep
from .hub import Hub
from .limits import Budget, Penalties
from .log import flush
from .media import Media
from .passwords import Hasher
from .reload import Load, Reloader, spread
from .service import SWEEP, Service
from .sockets import bound
from .store import FILE, Store

log = structlog.get_logger("pushd.server")

HOUR, MINUTE = 3600.0, 60.0
# For how many seconds each budget is.
BUDGETS = {
    "registers": HOUR,
    "logins": HOUR,
    "wrong_push_ids": MINUTE,
    "phone_searches": HOUR,
    "searches": HOUR,
    "friend_requests": HOUR,
    "groups": HOUR,
    "files": HOUR,
}
# How often the size of the store's log is looked at, in seconds.
LOG_PERIOD = 15.0
# How often old things are removed, and how many rows at a time.
MAINTENANCE = HOUR
MAINTENANCE_ROWS = 1000
DAY_MS = 86_400_000
# Signals that wait from the reading of the settings until they can be obeyed, and again at the
# end: by default they would end the process.
HELD = frozenset({signal.SIGHUP, signal.SIGUSR1})
# Descriptors that stay for the store when clients take all they can get.
RESERVED_FILES = 64


class ListenError(Exception):
    """An address cannot be listened on; the text says which and why."""


class Server:
    """One running server; `run` returns its exit code."""

    def __init__(
        self, config: Config, clock: Clock | None = None, load: Load | None = None
    ) -> None:
        self.clock = clock or Clock()
        self.addresses: list[str] = []  # what is listened on, with real ports
        self.service: Service
        self._start = config  # the settings of the start
        self._load = load or (lambda: config)  # makes them anew
        self._reloader: Reloader | None = None  # None before there is something to change
        self._asked = asyncio.Event()  # a reload was asked for by a signal
        self._stop: asyncio.Event
        self._stops = 0  # how many signals asked to stop
        self._listeners: list[asyncio.Server] = []

    async def run(
        self, *, ready: Callable[[list[str]], None] = lambda addresses: None, signals: bool = True
    ) -> int:
        """Serve until a signal or `stop`; gives the exit code.

        Raises StoreError when the store cannot be opened, ListenError for an address.
        """
        self._stop = asyncio.Event()
        store = await Store.open(self.config, self.clock)
        hasher = Hasher(
            self.config.auth.bcrypt_cost,
            self.config.auth.bcrypt_threads,
            self.config.auth.bcrypt_waiting,
        )
        media = Media(
            store.folder,
            picture_pixels=self.config.media.picture_pixels,
            threads=self.config.media.threads,
        )
        try:
            media.open()
            return await self._serve(store, hasher, media, ready, signals)
        finally:
            media.close()
            hasher.close()
            await store.close()

    @property
    def config(self) -> Config:
        """The settings that hold now."""
        return self._start if self._reloader is None else self.service.ctx.config

    def stop(self) -> None:
        """Ask the server to shut down; idempotent."""
        self._stop.set()

    async def reload(self) -> dict[str, list[str]]:
        """Read the settings anew, as `Reloader.reload` does; refused while the server stops."""
        if self._reloader is None or self._stop.is_set():
            log.info("not reloaded, the server is starting or stopping")
            return {"errors": ["the server is starting or stopping"]}
        result = await self._reloader.reload()
        _raise_file_limit(self.config.limits.connections)
        return result

    async def _serve(
        self,
        store: Store,
        hasher: Hasher,
        media: Media,
        ready: Callable[[list[str]], None],
        signals: bool,
    ) -> int:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_unhandled)
        ctx = self._context(store, hasher, media)
        self.service = service = Service(ctx, loop)
        spread(ctx, service, self.config)
        self._reloader = Reloader(ctx, service, self._load)
        writer = store.start(ctx.hub.deliver)
        await self._listen(loop, service)
        if signals:
            self._take_signals(loop)
        background = [
            loop.create_task(self._reload_when_asked()),
            loop.create_task(_every(SWEEP, service.sweep)),
            loop.create_task(self._repeat(MAINTENANCE, partial(self._maintain, store))),
            loop.create_task(self._repeat(MAINTENANCE, partial(sweep, ctx))),
            loop.create_task(self._repeat(LOG_PERIOD, partial(self._tend_log, store))),
        ]
        # What start-up made lives as long as the process: the collector need not look at it.
        gc.collect()
        gc.freeze()
        # What a message makes is freed by its counts; cycles are rare, so looking for them is too.
        gc.set_threshold(50_000, 20, 20)
        log.info("ready", listen=self.addresses)
        ready(self.addresses)
        stopping = loop.create_task(self._stop.wait())
        try:
            await asyncio.wait([stopping, writer], return_when=asyncio.FIRST_COMPLETED)
            if writer.done():
                return self._failed(writer)
            await self._shut_down(service, store)
            return 0
        finally:
            if signals:
                signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
            for task in (stopping, *background):
                task.cancel()
            for listener in self._listeners:
                listener.close()
            for peer in tuple(service.connections):
                peer.abort()

    def _context(self, store: Store, hasher: Hasher, media: Media) -> Context:
        keys = self.config.limits.budget_keys
        dates = Dates(self.config.server.zone)
        return Context(
            store=store,
            hub=Hub(self.clock, dates),
            clock=self.clock,
            dates=dates,
            config=self.config,
            hasher=hasher,
            media=media,
            penalties=Penalties(keys=keys),
            # How many of each is for `spread` to say.
            budgets={name: Budget(0, seconds, keys) for name, seconds in BUDGETS.items()},
            token=lambda: secrets.token_urlsafe(18),
            table=handlers.table(),
        )

    async def _listen(self, loop: asyncio.AbstractEventLoop, service: Service) -> None:
        backlog = self.config.server.backlog
        for text in self.config.server.listen:
            host, port = parse_address(text)
            try:
                for sock in await bound(loop, host, port):
                    listener = await loop.create_server(
                        lambda: Connection(service), sock=sock, backlog=backlog
                    )
                    self._listeners.append(listener)
                    self.addresses.append(_address_of(sock))
            except OSError as problem:
                raise ListenError(f"{text}: cannot listen: {problem.strerror}") from None

    async def _shut_down(self, service: Service, store: Store) -> None:
        """Let what was read be answered, then say goodbye; cut who hangs."""
        log.info("stopping", connections=len(service.connections))
        deadline = self.clock.now() + self.config.server.stop_seconds
        for listener in self._listeners:
            listener.close()
        service.refuse_new_work()
        await _until(lambda: service.finished, self.clock, deadline - 2.0)
        service.shut_down()
        await _until(lambda: not service.connections, self.clock, deadline)

    def _failed(self, writer: "asyncio.Task[None]") -> int:
        problem = writer.exception()
        if isinstance(problem, StoreFailed):
            log.critical("the store failed, nothing more is confirmed", problem=str(problem))
            return 1
        raise problem or AssertionError("the writer ended by itself")

    def _take_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        """Handle signals from now on, and those that came since the settings were read."""
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal)
        loop.add_signal_handler(signal.SIGHUP, self._asked.set)
        loop.add_signal_handler(signal.SIGUSR1, self._dump)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)

    def _dump(self) -> None:
        dump(self.service)

    async def _reload_when_asked(self) -> None:
        """Reload after each signal; several that come during a reload are one."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                await self.reload()
            except Exception as bug:
                log.error("not reloaded", exc_info=bug)

    def _on_stop_signal(self) -> None:
        self._stops += 1
        if self._stops > 1:
            # Asked a second time: at once. What was confirmed is on the disk.
            log.critical("stopped at once, by a second signal")
            flush()
            os._exit(1)
        self.stop()

    async def _tend_log(self, store: Store) -> None:
        """Keep the store's log small, and say so when another program prevents it."""
        size = await store.tend_log()
        if size:
            log.warning(
                "the store's log cannot shrink: a program holds a long read transaction",
                bytes=size,
            )

    async def _maintain(self, store: Store) -> None:
        """Remove what is too old, in small steps."""
        queue, limits = self.config.queue, self.config.limits
        online = self.service.ctx.hub.devices()
        for start in range(0, len(online), MAINTENANCE_ROWS):
            await store.devices.seen_now(online[start : start + MAINTENANCE_ROWS])
        now = self.clock.wall()
        old_client_ids = now - limits.client_id_days * DAY_MS
        steps: list[Callable[[], Any]] = [
            partial(store.messages.expire_queues, now - queue.days * DAY_MS, 10),
            partial(store.devices.drop_unseen, now - queue.device_days * DAY_MS, 10),
            partial(store.messages.free_client_ids, old_client_ids, MAINTENANCE_ROWS),
        ]
        for step in steps:
            while await step():
                await self.clock.sleep(0.01)

    async def _repeat(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        """Do something now and then for as long as the server runs; what fails is tried again."""
        while True:
            try:
                await work()
            except Exception as problem:
                # A full disk or a busy store; a store that failed ends the server elsewhere.
                log.warning("upkeep failed", work=_name_of(work), problem=problem)
            await self.clock.sleep(seconds)


def _unhandled(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody caught; the loop's own text would quote whatever the exception does."""
    log.error("unhandled", what=context.get("message"), exc_info=context.get("exception"))


async def _every(seconds: float, function: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        function()


async def _until(condition: Callable[[], bool], clock: Clock, deadline: float) -> None:
    while not condition() and clock.now() < deadline:
        await clock.sleep(0.01)


def _name_of(work: Callable[..., object]) -> str:
    return getattr(getattr(work, "func", work), "__name__", "?")


def _address_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _raise_file_limit(wanted: int) -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = min(hard, max(soft, wanted + RESERVED_FILES))
    if target > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    return target


def main(config: Config, *, ports_file: str | None = None, load: Load | None = None) -> int:
    """Run a server until a signal; gives the exit code, with one line on stderr when it fails.

    `load` makes the settings anew for a reload.
    """
    # What the store holds is for this user's eyes only.
    os.umask(0o077)
    files = _raise_file_limit(config.limits.connections)
    # The writer's thread wins the GIL back sooner beside a busy loop.
    sys.setswitchinterval(0.0005)
    log.info("starting", **_first_line(config), files=files)

    def ready(addresses: list[str]) -> None:
        if ports_file:
            # Whoever waits for the file never sees half of it.
            with open(f"{ports_file}.new", "w") as file:
                file.write("".join(f"{address}\n" for address in addresses))
            os.replace(f"{ports_file}.new", ports_file)

    try:
        with asyncio.Runner(loop_factory=_loop_factory(config.server.loop)) as runner:
            code = runner.run(Server(config, load=load).run(ready=ready))
    except (StoreError, ListenError) as problem:
        log.critical("cannot start", problem=str(problem))
        return 1
    except OSError as problem:
        if problem.errno != errno.ENOSPC:
            raise
        log.critical("cannot start", problem=str(problem))
        return 1
    log.info("stopped", code=code)
    return code


def _first_line(config: Config) -> dict[str, object]:
    """Say what is started: enough to know from a log alone what was asked for."""
    limits = config.limits
    return {
        "version": __version__,
        "config": list(config.files) or "defaults",
        "listen": list(config.server.listen),
        "store": os.path.join(config.server.data, FILE),
        "sqlite": sqlite3.sqlite_version,
        "loop": config.server.loop,
        "connections": limits.connections,
        "connections_per_address": limits.connections_per_address,
        "line": limits.line,
        "queue_messages": config.queue.messages,
        "queue_days": config.queue.days,
    }


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name == "asyncio":
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop
