"""The composition root: store, hub and commands wired together, listeners, signals, shutdown.

Shutting down goes in stages: no new connections and 5030 to new work; what was handed in is
committed and answered and outboxes are written, as far as peers take them; every connection gets
its last frame; the store is closed. Peers that hang are cut when the time is up.
"""

import asyncio
import errno
import gc
import os
import platform
import resource
import secrets
import signal
import socket
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import structlog

from . import __version__, handlers
from .clock import Clock, Dates
from .commands import Context
from .config import Config, control_path, parse_address
from .connection import Connection
from .control import ControlConnection, ControlSocket, Running
from .errors import PushdError, StoreError, StoreFailed
from .exporter import Exporter, missing
from .handlers.file import sweep
from .handlers.operator import write_attempts
from .health import Health
from .hub import Hub
from .limits import Budget, Penalties
from .media import Media
from .metrics import Sources
from .passwords import Hasher
from .service import SWEEP, Service
from .store import Store

log = structlog.get_logger("pushd.server")

HOUR, MINUTE = 3600.0, 60.0
# How often the size of the store's log is looked at, in seconds.
LOG_PERIOD = 15.0
# How often the logins of the last seconds are written down.
AUDIT_PERIOD = 5.0
# How often old things are removed, and how many rows at a time.
MAINTENANCE = HOUR
MAINTENANCE_ROWS = 1000
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
# Descriptors that stay for the store when clients take all they can get.
RESERVED_FILES = 64


class ListenError(Exception):
    """An address cannot be listened on; the text says which and why."""


class Server:
    """One running server; `run` returns its exit code."""

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        self.config = config
        self.clock = clock or Clock()
        self.addresses: list[str] = []  # what is listened on, with real ports
        self.service: Service
        self.health: Health
        self._stop: asyncio.Event
        self._stops = 0  # how many signals asked to stop
        self._listeners: list[asyncio.Server] = []
        self._control: ControlSocket | None = None

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
        media = Media(store.folder, picture_pixels=self.config.media.picture_pixels)
        try:
            media.open()
            return await self._serve(store, hasher, media, ready, signals)
        finally:
            media.close()
            hasher.close()
            await store.close()

    def stop(self) -> None:
        """Ask the server to shut down; idempotent."""
        self._stop.set()

    async def _serve(
        self,
        store: Store,
        hasher: Hasher,
        media: Media,
        ready: Callable[[list[str]], None],
        signals: bool,
    ) -> int:
        loop = asyncio.get_running_loop()
        ctx = self._context(store, hasher, media)
        self.service = service = Service(ctx, loop)
        writer = store.start(ctx.hub.deliver)
        self.health = Health(service, refresh=self.config.metrics.refresh_seconds)
        sources = Sources(service, self.health, self._build())
        ctx.control = Running(sources, self.clock, self.stop)
        await self._listen(loop, service)
        await self._listen_for_control(loop, service)
        exporter = self._export(loop, sources)
        self.health.watch(loop)
        if signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._on_stop_signal)
        background = [
            loop.create_task(_every(SWEEP, service.sweep)),
            loop.create_task(self._repeat(MAINTENANCE, partial(self._maintain, store))),
            loop.create_task(self._repeat(MAINTENANCE, partial(sweep, ctx))),
            loop.create_task(self._repeat(LOG_PERIOD, partial(self._tend_log, store))),
            loop.create_task(self._repeat(AUDIT_PERIOD, partial(write_attempts, ctx))),
        ]
        # What start-up made lives as long as the process: the collector need not look at it.
        gc.collect()
        gc.freeze()
        # What a message makes is freed by its counts; cycles are rare, so looking for them is too.
        gc.set_threshold(50_000, 20, 20)
        control = str(self._control.path) if self._control else ""
        log.info("ready", listen=self.addresses, control=control)
        ready(self.addresses)
        stopping = loop.create_task(self._stop.wait())
        try:
            await asyncio.wait([stopping, writer], return_when=asyncio.FIRST_COMPLETED)
            if writer.done():
                return self._failed(writer)
            await self._shut_down(service, store)
            return 0
        finally:
            for task in (stopping, *background):
                task.cancel()
            for listener in self._listeners:
                listener.close()
            if self._control is not None:
                self._control.remove()
            for peer in tuple(service.connections):
                peer.abort()
            if exporter is not None:
                await exporter.close()
            self.health.close()
            # It uses the store, which is closed next.
            await ctx.jobs.close()

    def _context(self, store: Store, hasher: Hasher, media: Media) -> Context:
        limits = self.config.limits
        dates = Dates(self.config.server.zone)
        counts = {
            "registers": (limits.registers, HOUR),
            "logins": (limits.logins, HOUR),
            "wrong_push_ids": (limits.wrong_push_ids, MINUTE),
            "phone_searches": (limits.phone_searches, HOUR),
            "searches": (limits.searches, HOUR),
            "friend_requests": (limits.friend_requests, HOUR),
            "groups": (limits.groups, HOUR),
            "files": (limits.files, HOUR),
            "typing": (limits.typing, MINUTE),
        }
        return Context(
            store=store,
            hub=Hub(self.clock, dates),
            clock=self.clock,
            dates=dates,
            config=self.config,
            hasher=hasher,
            media=media,
            penalties=Penalties(limits.wrong_passwords, MINUTE, limits.budget_keys),
            budgets={
                name: Budget(count, seconds, limits.budget_keys)
                for name, (count, seconds) in counts.items()
            },
            token=lambda: secrets.token_urlsafe(18),
            table=handlers.table(),
        )

    def _build(self) -> dict[str, str]:
        """Give what the running program is made of."""
        return {
            "version": __version__,
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            "loop": self.config.server.loop,
        }

    def _export(self, loop: asyncio.AbstractEventLoop, sources: Sources) -> Exporter | None:
        """Serve the metrics, if that is wanted."""
        address = self.config.metrics.listen
        if not address:
            return None
        if missing():
            raise ListenError(missing())
        try:
            exporter = Exporter(address, sources, loop)
        except OSError as problem:
            reason = os.strerror(problem.errno) if problem.errno else str(problem)
            raise ListenError(f"metrics.listen: {address}: cannot listen: {reason}") from None
        log.info("metrics", listen=exporter.address)
        return exporter

    async def _listen(self, loop: asyncio.AbstractEventLoop, service: Service) -> None:
        backlog = self.config.server.backlog
        for text in self.config.server.listen:
            host, port = parse_address(text)
            try:
                listener = await loop.create_server(
                    lambda: Connection(service), host or None, port, backlog=backlog
                )
            except OSError as problem:
                reason = os.strerror(problem.errno) if problem.errno else str(problem)
                raise ListenError(f"{text}: cannot listen: {reason}") from None
            self._listeners.append(listener)
            self.addresses += [_address_of(sock) for sock in listener.sockets]

    async def _listen_for_control(self, loop: asyncio.AbstractEventLoop, service: Service) -> None:
        settings = self.config.server
        try:
            path = control_path(settings.data, settings.control)
            if not path:
                return
            control = ControlSocket(path)
            sock = control.open(settings.backlog)
        except (OSError, ValueError) as problem:
            reason = problem.strerror if isinstance(problem, OSError) else problem
            raise ListenError(f"server.control: {settings.control}: {reason}") from None
        self._control = control
        self._listeners.append(
            await loop.create_unix_server(lambda: ControlConnection(service), sock=sock)
        )

    async def _shut_down(self, service: Service, store: Store) -> None:
        """Let what was read be answered, then say goodbye; cut who hangs."""
        log.info("stopping", connections=len(service.connections))
        deadline = self.clock.now() + self.config.server.stop_seconds
        for listener in self._listeners:
            listener.close()
        service.ctx.jobs.cancel()
        service.refuse_new_work()
        await _until(lambda: service.finished, self.clock, deadline - 2.0)
        service.shut_down()
        await _until(lambda: not service.connections, self.clock, deadline)
        with suppress(PushdError):
            await write_attempts(service.ctx)

    def _failed(self, writer: "asyncio.Task[None]") -> int:
        problem = writer.exception()
        if isinstance(problem, StoreFailed):
            log.critical("the store failed, nothing more is confirmed", problem=str(problem))
            return 1
        raise problem or AssertionError("the writer ended by itself")

    def _on_stop_signal(self) -> None:
        self._stops += 1
        if self._stops > 1:
            # Asked a second time: at once. What was confirmed is on the disk.
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
        await self._forget(store)
        queue, limits = self.config.queue, self.config.limits
        online = self.service.ctx.hub.devices()
        for start in range(0, len(online), MAINTENANCE_ROWS):
            await store.devices.seen_now(online[start : start + MAINTENANCE_ROWS])
        now = self.clock.wall()
        old_client_ids = now - limits.client_id_days * DAY_MS
        steps: list[Callable[[], Any]] = [
            partial(store.devices.drop_unseen, now - queue.device_days * DAY_MS, 10),
            partial(store.messages.free_client_ids, old_client_ids, MAINTENANCE_ROWS),
            partial(store.audit.trim, MAINTENANCE_ROWS),
            partial(store.tracing.trim, MAINTENANCE_ROWS),
            partial(store.mailings.trim, old_client_ids, 10),
        ]
        for step in steps:
            while await step():
                await self.clock.sleep(0.01)

    async def _forget(self, store: Store) -> None:
        """Let queues expire, then history, then messages that have had an end of their own."""
        config, now, retention = self.config, self.clock.wall(), store.retention
        queues = now - config.queue.days * DAY_MS
        history = now - config.store.history_days * DAY_MS if config.store.history_days else 0
        # An hour ahead: what moves from queue to queue meanwhile is found before its message goes.
        await retention.expire_queues(max(queues, history + HOUR_MS if history else 0))
        if history:
            await retention.forget(history)
        # Repeats of a message are known by it, and a queue names it, for so long.
        kept = max(config.queue.days, config.limits.client_id_days)
        await retention.forget_expired(now - kept * DAY_MS - HOUR_MS)

    async def _repeat(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        """Do something now and then for as long as the server runs; what fails is tried again."""
        while True:
            try:
                await work()
            except Exception as problem:
                # A full disk or a busy store; a store that failed ends the server elsewhere.
                log.warning("upkeep failed", work=str(work), problem=str(problem))
            await self.clock.sleep(seconds)


async def _every(seconds: float, function: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        function()


async def _until(condition: Callable[[], bool], clock: Clock, deadline: float) -> None:
    while not condition() and clock.now() < deadline:
        await clock.sleep(0.01)


def _address_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _raise_file_limit(wanted: int) -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = min(hard, max(soft, wanted + RESERVED_FILES))
    if target > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    return target


def main(config: Config, *, ports_file: str | None = None) -> int:
    """Run a server until a signal; gives the exit code, with one line on stderr when it fails."""
    # What the store holds is for this user's eyes only.
    os.umask(0o077)
    files = _raise_file_limit(config.limits.connections)
    # The writer's thread wins the GIL back sooner beside a busy loop.
    sys.setswitchinterval(0.0005)
    log.info(
        "starting",
        version=__version__,
        data=config.server.data,
        sqlite=sqlite3.sqlite_version,
        loop=config.server.loop,
        files=files,
    )

    def ready(addresses: list[str]) -> None:
        if ports_file:
            # Whoever waits for the file never sees half of it.
            with open(f"{ports_file}.new", "w") as file:
                file.write("".join(f"{address}\n" for address in addresses))
            os.replace(f"{ports_file}.new", ports_file)

    try:
        with asyncio.Runner(loop_factory=_loop_factory(config.server.loop)) as runner:
            code = runner.run(Server(config).run(ready=ready))
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


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name == "asyncio":
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop
