"""The composition root: store, hub and commands wired together, listeners, signals, the end.

Signals count from the first moment on. TERM and INT shut down in stages, a second one ends at
once; HUP reloads; USR2 is lame duck. Whoever supervises hears READY only when the store has been
recovered and all listeners are open, and signs of life only while the store answers.
"""

import asyncio
import contextlib
import errno
import gc
import os
import platform
import resource
import secrets
import signal
import socket
import sqlite3
import ssl
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import structlog

from . import __version__, handlers, systemd, tls, upkeep
from .build import compiled
from .clock import Clock, Dates
from .commands import Context
from .config import Config, Tls, control_path
from .control import ControlConnection, ControlSocket, Running
from .dump import dump
from .errors import ConfigError, PushdError, Refusal, StoreError, StoreFailed
from .exporter import Exporter, missing
from .handlers.operator import write_attempts
from .health import Health
from .hub import Hub
from .limits import Budget, Penalties
from .listeners import RESERVED_FILES, ListenError, Listeners
from .log import flush
from .media import Media
from .metrics import Sources
from .passwords import Hasher
from .reload import Load, Reloader, spread
from .service import SWEEP, Service
from .stages import lame_duck, shut_down
from .store import FILE, Store
from .systemd import Notifier, Told

log = structlog.get_logger("pushd.server")

HOUR, MINUTE = 3600.0, 60.0
# For how many seconds each budget is.
BUDGETS = {
    "registers": HOUR,
    "logins": HOUR,
    "wrong_push_ids": MINUTE,
    "phone_searches": HOUR,
    "searches": HOUR,
    "profiles": HOUR,
    "friend_requests": HOUR,
    "groups": HOUR,
    "files": HOUR,
    "typing": MINUTE,
}
# What the store may take to close after the last frames, as the supervisor is told, in seconds.
CLOSING = 10.0
# Signals that wait from the reading of the settings until they can be obeyed, and again at the
# end: by default they would end the process.
HELD = frozenset({signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2})


class Server:
    """One running server; `run` returns its exit code."""

    def __init__(
        self,
        config: Config,
        clock: Clock | None = None,
        told: Told | None = None,
        load: Load | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self._told = told or Told()
        self._notifier = Notifier(self._told.notify)
        # Sockets that the supervisor passed, by name; who uses one takes it out.
        self.inherited = systemd.inherited(self._told.names)
        self.addresses: list[str] = []  # what is listened on, with real ports
        self.service: Service
        self.health: Health
        self._start = config  # the settings of the start
        self._load = load or (lambda: config)  # makes them anew
        self._reloader: Reloader | None = None  # None before there is something to change
        self._asked = asyncio.Event()  # a reload was asked for by a signal
        self._stop: asyncio.Event
        self._duck: asyncio.Event  # lame duck was asked for
        self._stops = 0  # how many signals asked to stop
        self._listeners: Listeners | None = None
        self._control: list[asyncio.Server] = []  # for operators
        self._control_socket: ControlSocket | None = None  # in its place, if it was made here

    async def run(
        self, *, ready: Callable[[list[str]], None] = lambda addresses: None, signals: bool = True
    ) -> int:
        """Serve until a signal or `stop`; gives the exit code.

        Raises StoreError when the store cannot be opened, ListenError for an address,
        CertificateError.
        """
        self._stop, self._duck = asyncio.Event(), asyncio.Event()
        if signals:
            self._catch_signals()
        try:
            return await self._run(ready)
        finally:
            if signals:
                signal.pthread_sigmask(signal.SIG_BLOCK, HELD)

    async def _run(self, ready: Callable[[list[str]], None]) -> int:
        store = await self._open_store()
        hasher = self._make_hasher()
        media = Media(
            store.folder,
            picture_pixels=self.config.media.picture_pixels,
            threads=self.config.media.threads,
        )
        try:
            media.open()
            return await self._serve(store, hasher, media, ready)
        finally:
            media.close()
            hasher.close()
            await store.close()

    # What has threads or chance in it is made by a method, which a simulation replaces.

    async def _make_store(self) -> Store:
        return await Store.open(self.config, self.clock)

    def _make_hasher(self) -> Hasher:
        auth = self.config.auth
        return Hasher(auth.bcrypt_cost, auth.bcrypt_threads, auth.bcrypt_waiting)

    @property
    def config(self) -> Config:
        """The settings that hold now."""
        return self._start if self._reloader is None else self.service.ctx.config

    def stop(self) -> None:
        """Ask the server to shut down; idempotent."""
        self._stop.set()

    def lame_duck(self) -> None:
        """Ask the server to send its clients away one by one, then to shut down; idempotent."""
        self._duck.set()

    async def reload(self) -> dict[str, list[str]]:
        """Read the settings anew, as `Reloader.reload` does; refused while the server stops."""
        if self._reloader is None or self._listeners is None or self._stop.is_set():
            log.info("not reloaded, the server is starting or stopping")
            return {"errors": ["the server is starting or stopping"]}
        self._notifier.reloading()
        try:
            result = await self._reloader.reload()
            self._listeners.allow(_raise_file_limit(self.config.limits.connections))
        finally:
            self._notifier.send(READY=1)
        return result

    def _prepare_certificate(self, fresh: Config) -> Callable[[], None]:
        """Read the certificate for the handshakes to come; raises ConfigError."""
        listeners, settings = self._listeners, fresh.tls
        if listeners is None or listeners.context is None or not settings.certificate:
            return lambda: None
        try:
            context = _tls_context(settings)
        except tls.CertificateError as problem:
            raise ConfigError([f"tls.certificate: {problem}"]) from None
        return partial(setattr, listeners, "context", context)

    def _catch_signals(self) -> None:
        """Handle signals from now on, and those that came since the settings were read."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal)
        loop.add_signal_handler(signal.SIGHUP, self._asked.set)
        loop.add_signal_handler(signal.SIGUSR1, self._dump)
        loop.add_signal_handler(signal.SIGUSR2, self.lame_duck)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)

    async def _open_store(self) -> Store:
        """Open the store, which may migrate for long; who asks to stop waits a little for it."""
        loop = asyncio.get_running_loop()
        with self._notifier.patience("opening the store"):
            opening = loop.create_task(self._make_store())
            stopping = loop.create_task(self._stop.wait())
            await asyncio.wait([opening, stopping], return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            await asyncio.wait([opening], timeout=self.config.server.stop_seconds)
        if not opening.done():
            # Nothing is served yet, and what a migration has not committed never was.
            log.info("stopped while the store was being opened")
            _leave(0)
        return opening.result()

    async def _serve(
        self,
        store: Store,
        hasher: Hasher,
        media: Media,
        ready: Callable[[list[str]], None],
    ) -> int:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_unhandled)
        ctx = self._context(store, hasher, media)
        self.service = service = Service(ctx, loop)
        spread(ctx, service, self.config)
        self._reloader = Reloader(ctx, service, self._load)
        writer = store.start(ctx.hub.deliver)
        self.health = Health(service, refresh=lambda: ctx.config.metrics.refresh_seconds)
        sources = Sources(service, self.health, self._build())
        ctx.control, ctx.reload = Running(sources, self.clock, self.stop), self.reload
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._listeners = listeners = Listeners(service, files=files)
        await self._listen(listeners)
        await self._listen_for_control(loop, service)
        exporter = self._export(loop, sources)
        self.health.watch(loop)
        self._reloader.prepare.append(self._prepare_certificate)
        background = [
            loop.create_task(self._reload_when_asked()),
            loop.create_task(_every(SWEEP, service.sweep)),
            *upkeep.begin(ctx, loop),
        ]
        if self._told.watchdog:
            alive = self._notifier.keep_alive(
                self._told.watchdog, partial(_probe, store), self._status
            )
            background.append(loop.create_task(alive))
        try:
            if not self._stop.is_set():
                ready(self.addresses)
                control = str(self._control_socket.path) if self._control_socket else ""
                log.info("ready", listen=self.addresses, control=control)
                self._notifier.send(READY=1, STATUS=self._status())
            await self._until_the_end(writer, listeners)
            return self._failed(writer) if writer.done() else 0
        finally:
            for task in background:
                task.cancel()
            listeners.close()
            for server in self._control:
                server.close()
            if self._control_socket is not None:
                self._control_socket.remove()
            for peer in tuple(service.connections):
                peer.abort()
            if exporter is not None:
                await exporter.close()
            self.health.close()
            # It uses the store, which is closed next.
            await ctx.jobs.close()

    async def _until_the_end(self, writer: "asyncio.Task[None]", listeners: Listeners) -> None:
        """Serve until asked to stop, then stop in stages; returns early when the writer ends."""
        loop = asyncio.get_running_loop()
        clock, settings = self.clock, self.config.server
        stopping = loop.create_task(self._stop.wait())
        ducking: asyncio.Task[Any] = loop.create_task(self._duck.wait())
        try:
            await _first(stopping, ducking, writer)
            listeners.close()
            if not (stopping.done() or writer.done()):
                self._notifier.send(STATUS="lame duck: sending clients away")
                ducking = loop.create_task(
                    lame_duck(self.service, clock, settings.lame_duck_seconds)
                )
                await _first(stopping, ducking, writer)
            if not writer.done():
                self._notifier.send(STOPPING=1, STATUS="stopping")
                self._notifier.extend(settings.stop_seconds + CLOSING)
                self.service.ctx.jobs.cancel()
                await shut_down(self.service, clock, settings.stop_seconds)
                with contextlib.suppress(PushdError):
                    await write_attempts(self.service.ctx)
        finally:
            stopping.cancel()
            ducking.cancel()

    def _status(self) -> str:
        return f"serving {len(self.service.connections)} connections"

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
            token=new_push_id,
            table=handlers.table(),
        )

    async def _listen(self, listeners: Listeners) -> None:
        """Open all listeners; what the supervisor passed takes the place of what is configured."""
        settings = self.config.tls
        secure = self.inherited.pop("tls", [])
        if settings.certificate:
            listeners.context = _tls_context(settings)
        elif secure:
            raise ListenError("a socket for TLS was passed, and tls.certificate is not set")
        passed = self.inherited.pop("tcp", [])
        for sock in passed:
            listeners.adopt(sock)
        for text in () if passed else self.config.server.listen:
            await listeners.listen(text)
        for sock in secure:
            listeners.adopt(sock, tls=True)
        for text in () if secure else settings.listen:
            await listeners.listen(text, tls=True)
        self.addresses = listeners.addresses

    async def _listen_for_control(self, loop: asyncio.AbstractEventLoop, service: Service) -> None:
        """Listen for operators, until the very end: what a shutdown waits for is seen there."""
        sockets = self.inherited.pop("control", [])
        if not sockets:
            settings = self.config.server
            path = control_path(settings.data, settings.control)
            if not path:
                return
            control = ControlSocket(path)
            try:
                sockets = [control.open(settings.backlog)]
            except (OSError, ValueError) as problem:
                reason = problem.strerror if isinstance(problem, OSError) else problem
                raise ListenError(f"server.control: {settings.control}: {reason}") from None
            self._control_socket = control
        for sock in sockets:
            if sock.family != socket.AF_UNIX:
                raise ListenError("control: a socket was passed that is no Unix socket")
            server = await loop.create_unix_server(lambda: ControlConnection(service), sock=sock)
            self._control.append(server)

    def _build(self) -> dict[str, str]:
        """Give what the running program is made of."""
        return {
            "version": __version__,
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            "loop": self.config.server.loop,
        }

    def _export(self, loop: asyncio.AbstractEventLoop, sources: Sources) -> Exporter | None:
        """Serve the metrics, if that is wanted, or a socket was passed for it."""
        passed = self.inherited.pop("metrics", [])
        address = self.config.metrics.listen
        if not (address or passed):
            return None
        if missing():
            raise ListenError(f"metrics.listen: {missing()}")
        if any(sock.family == socket.AF_UNIX for sock in passed):
            raise ListenError("metrics: a socket was passed that is no TCP socket")
        try:
            exporter = Exporter(address, sources, loop, passed[0] if passed else None)
        except OSError as problem:
            reason = os.strerror(problem.errno) if problem.errno else str(problem)
            raise ListenError(f"metrics.listen: {address}: cannot listen: {reason}") from None
        log.info("metrics", listen=exporter.address)
        return exporter

    def _failed(self, writer: "asyncio.Task[None]") -> int:
        problem = writer.exception()
        if isinstance(problem, StoreFailed):
            log.critical("the store failed, nothing more is confirmed", problem=str(problem))
            return 1
        raise problem or AssertionError("the writer ended by itself")

    def _dump(self) -> None:
        if self._reloader is not None:
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


def new_push_id() -> str:
    """Make a pushId: 144 bits from the system, and nothing that could be guessed from another."""
    return secrets.token_urlsafe(18)


def _tls_context(settings: Tls) -> ssl.SSLContext:
    """Read the certificate; raises CertificateError. A key that is no secret works, and is told."""
    context = tls.server_context(settings.certificate, settings.key)
    exposed = tls.exposed(settings.certificate, settings.key)
    if exposed:
        log.warning("the key is no secret", problem=exposed)
    return context


def _unhandled(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody caught; the loop's own text would quote whatever the exception does."""
    log.error("unhandled", what=context.get("message"), exc_info=context.get("exception"))


async def _every(seconds: float, function: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        function()


async def _first(*tasks: "asyncio.Task[Any]") -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


async def _probe(store: Store) -> None:
    """Come back once the store's writer has answered, be it that another program holds the file."""
    with contextlib.suppress(Refusal):
        await store.writer.barrier()


def _raise_file_limit(wanted: int) -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = min(hard, max(soft, wanted + RESERVED_FILES))
    if target > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    return target


def main(
    config: Config,
    *,
    ports_file: str | None = None,
    told: Told | None = None,
    load: Load | None = None,
) -> int:
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
        # What start-up made lives as long as the process: the collector need not look at it.
        gc.collect()
        gc.freeze()
        # What a message makes is freed by its counts; cycles are rare, so looking for them is too.
        gc.set_threshold(50_000, 20, 20)
        if ports_file:
            try:
                _write_whole(ports_file, "".join(f"{address}\n" for address in addresses))
            except OSError as problem:
                raise ListenError(f"--ports-file {ports_file}: {problem.strerror}") from None

    told = told or Told()
    try:
        with asyncio.Runner(loop_factory=_loop_factory(config.server.loop)) as runner:
            code = runner.run(Server(config, told=told, load=load).run(ready=ready))
    except (StoreError, ListenError, tls.CertificateError, systemd.SocketError) as problem:
        return _cannot_start(told, problem)
    except OSError as problem:
        if problem.errno != errno.ENOSPC:
            raise
        return _cannot_start(told, problem)
    log.info("stopped", code=code)
    if threading.active_count() > 1:
        # Such as a password that is being hashed for somebody who has gone. All that counts is
        # closed, and nobody waits for the rest.
        _leave(code)
    return code


def _write_whole(path: str, text: str) -> None:
    """Write a file that nobody sees half of, and follow no link that stands in its way."""
    aside = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(aside)
    with open(aside, "x") as file:
        file.write(text)
    os.replace(aside, path)


def _first_line(config: Config) -> dict[str, object]:
    """Say what is started: enough to know from a log alone what was asked for."""
    limits = config.limits
    return {
        "version": __version__,
        "compiled": compiled(),
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


def _leave(code: int) -> NoReturn:
    """End the process now, waiting for no thread but the log's, and for that one briefly."""
    flush()
    os._exit(code)


def _cannot_start(told: Told, problem: Exception) -> int:
    log.critical("cannot start", problem=str(problem))
    Notifier(told.notify).send(STATUS=f"cannot start: {problem}")
    return 1


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name == "asyncio":
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop
