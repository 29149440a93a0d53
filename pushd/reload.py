"""Settings that change while the server runs: read anew, compared, and handed out.

Nothing changes before all is known to be good: the layers are read and checked as at the start,
then whoever keeps files of its own prepares itself, and only then is anything replaced, in one
turn of the loop. A bad file leaves all as it was.

Most code reads `ctx.config` afresh, so that replacing it is enough. `spread` names everything
that holds a copy. It is called at the start as well: what it forgets is wrong from then on.
Reading happens in a thread, for a slow disk must not hold up the loop.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import structlog

from . import config, log
from .commands import Context
from .config import Config
from .errors import ConfigError
from .service import Service

logger = structlog.get_logger("pushd.reload")

T = TypeVar("T")

# Makes the config of all layers anew, with the flags and the environment of the start.
Load = Callable[[], Config]
# Reads what a part keeps in files of its own, in a thread; gives what puts it into use, on the
# loop. Raises ConfigError.
Prepare = Callable[[Config], Callable[[], None]]

# Connections that are told of a change before others have their turn.
STEP = 500
# Levels at which a reload is told of: a change of the level happens on the side that tells.
HEARD = ("debug", "info")
# The settings that bound how long a connection may be silent, and those of a device's window.
DEADLINES = ("limits.login_idle", "limits.login_total", "limits.write_timeout")
WINDOW = ("limits.window_messages", "limits.window_bytes")


def spread(ctx: Context, service: Service, settings: Config) -> None:
    """Give every part that holds a copy of settings those that hold from now on."""
    ctx.config = settings
    limits = settings.limits
    for name, budget in ctx.budgets.items():
        budget.count = getattr(limits, name)
    penalties = ctx.penalties
    penalties.count = limits.wrong_passwords
    penalties.first_wait = limits.wrong_password_wait
    penalties.longest_wait = limits.wrong_password_wait_max
    penalties.crowd = limits.wrong_passwords_in_all
    penalties.slowest = limits.wrong_passwords_delay
    penalties.trust = limits.trust_days * 86400.0
    ctx.hasher.configure(settings.auth.bcrypt_cost, settings.auth.bcrypt_waiting)
    ctx.media.picture_pixels = settings.media.picture_pixels
    ctx.store.configure(settings)
    service.configure(settings)


class Reloader:
    """Reloads the settings of one running server."""

    def __init__(self, ctx: Context, service: Service, load: Load) -> None:
        self.prepare: list[Prepare] = []  # what else is read anew, and may be refused
        self._ctx = ctx
        self._service = service
        self._load = load
        self._turn = asyncio.Lock()  # one reload after the other

    async def reload(self) -> dict[str, list[str]]:
        """Read all settings anew and put them into use.

        Gives the names of those that `changed`, and of those that wait for a `restart`; or the
        `errors`, one line each, and then all is as before.
        """
        async with self._turn:
            try:
                fresh, ready = await asyncio.to_thread(self._read)
            except ConfigError as problem:
                for line in problem.lines:
                    logger.error("bad setting", problem=line)
                logger.error("not reloaded, all settings stay", errors=len(problem.lines))
                return {"errors": list(problem.lines)}
            return await self._apply(fresh, ready)

    def _read(self) -> tuple[Config, list[Callable[[], None]]]:
        fresh = self._load()
        return fresh, [prepare(fresh) for prepare in self.prepare]

    async def _apply(
        self, fresh: Config, ready: Sequence[Callable[[], None]]
    ) -> dict[str, list[str]]:
        heard = log.level() in HEARD
        settings, changed, restart = config.adopt(self._ctx.config, fresh)
        spread(self._ctx, self._service, settings)
        for use in ready:
            use()
        if not heard:
            _adjust_log(settings)
        for key in restart:
            logger.warning("takes effect at the next start", setting=key)
        logger.info("reloaded", changed=changed, files=list(settings.files))
        if heard:
            _adjust_log(settings)
        await self._tell(changed)
        return {"changed": changed, "restart": restart}

    async def _tell(self, changed: Sequence[str]) -> None:
        """Have connections that exist follow, a few in each turn of the loop."""
        limits = self._ctx.config.limits
        if set(changed) & set(WINDOW):
            for sessions in _slices(self._ctx.hub.started()):
                for session in sessions:
                    if session.outbox is not None:
                        session.outbox.resize(limits.window_messages, limits.window_bytes)
                        session.link.wake()
                await asyncio.sleep(0)
        if set(changed) & set(DEADLINES):
            for peers in _slices(tuple(self._service.connections)):
                for peer in peers:
                    if peer in self._service.connections:
                        self._service.schedule(peer, self._service.now())
                await asyncio.sleep(0)


def _adjust_log(settings: Config) -> None:
    wanted = settings.log
    log.adjust(wanted.level, wanted.format, rate=wanted.rate, waiting=wanted.waiting)


def _slices(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), STEP):
        yield items[start : start + STEP]
