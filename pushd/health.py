"""How the server is: does its loop turn, can its store be written, and what waits in it.

One timer measures how late the loop is. What the store has to be asked for is asked by whoever
wants to know, and at most every few seconds whoever asks how often: callers share one question,
and a question that took long is not repeated soon. So monitoring costs nothing while nobody looks.

`lag`, `turned` and `census` are plain values that another thread may read.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from .histogram import SECONDS, Histogram
from .hub import Hub
from .service import Service
from .store import Store
from .store.health import Census

# Seconds between two looks at how late the loop is.
PERIOD = 0.05
# Seconds over which the greatest lag is remembered, at least; at most twice as long.
RECENT = 60.0
# Seconds after which a store that does not answer is not ready.
PATIENCE = 2.0
# Sessions that are looked at before others have their turn.
SESSIONS_A_TURN = 1000
# A question to the store is not repeated before this many times the time that it took.
REST = 20


class Shared:
    """One piece of work that many may ask for: done once for all, and not again too soon."""

    def __init__(self, work: Callable[[], Awaitable[None]], seconds: Callable[[], float]) -> None:
        self._work = work
        self._seconds = seconds  # for how many seconds an outcome is good enough
        self._due = 0.0  # when it is not any more
        self._task: asyncio.Task[None] | None = None

    async def fresh(self) -> None:
        """Return once the work was done lately."""
        if self._task is None:
            if time.monotonic() < self._due:
                return
            self._task = asyncio.get_running_loop().create_task(self._run())
        # Whoever waits may go; the others still want it.
        await asyncio.shield(self._task)

    async def _run(self) -> None:
        begin = time.monotonic()
        try:
            await self._work()
        finally:
            took = time.monotonic() - begin
            self._due = begin + took + max(self._seconds(), REST * took if took > 0.1 else 0.0)
            self._task = None


class Health:
    """What is measured of one server."""

    def __init__(self, service: Service, *, refresh: Callable[[], float]) -> None:
        self.lag = Histogram(SECONDS)  # how late timers were, in seconds
        self.turned = time.monotonic()  # when the loop ran last
        self.began = self.turned
        self.census = Census()
        self._asked = 0.0  # since when the store is asked whether it takes a write, 0 if it is not
        self._problem = ""  # why the store took no write when it was asked last
        self._service = service
        self._store: Store = service.ctx.store
        self._hub: Hub = service.ctx.hub
        self._due = 0.0  # when the loop should look next
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # the one that is watched
        self._worst = [0.0, 0.0]  # the greatest lag of this period and of the one before
        self._worst_since = self.turned
        self._counted = Shared(self._count, refresh)
        self._probed = Shared(self._probe, refresh)

    # --- the loop -------------------------------------------------------------------------

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Measure how late the loop is from now on, until `close`."""
        self._loop = loop
        self._due = time.monotonic() + PERIOD
        self._timer = loop.call_later(PERIOD, self._look, loop)

    def close(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        self._late(now, max(0.0, now - self._due))
        self.watch(loop)

    def _late(self, now: float, lag: float) -> None:
        self.turned = now
        self.lag.add(lag)
        if now - self._worst_since >= RECENT:
            self._worst = [0.0, self._worst[0]]
            self._worst_since = now
        self._worst[0] = max(self._worst[0], lag)

    @property
    def tasks(self) -> int:
        """How many tasks the loop has; any thread may ask."""
        return len(asyncio.all_tasks(self._loop)) if self._loop is not None else 0

    @property
    def stuck(self) -> float:
        """For how many seconds the loop has not turned; any thread may ask."""
        return max(0.0, time.monotonic() - self.turned - PERIOD)

    @property
    def worst(self) -> float:
        """The greatest lag of the last minute or two, one that is still growing included."""
        return max(*self._worst, self.stuck)

    # --- the store ------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Have a census that is a few seconds old at most."""
        await self._counted.fresh()

    @property
    def problem(self) -> str:
        """Why the server is not ready for clients, as far as is known; "" when it is."""
        if self._service.draining:
            return "stopping"
        if self._service.lame:
            return "lame duck: clients are sent away"
        if self._store.writer.failed is not None:
            return "the store has failed"
        waited = time.monotonic() - self._asked if self._asked else 0.0
        if waited >= PATIENCE:
            return f"the store has not answered for {waited:.0f} s"
        return self._problem

    async def ready(self) -> str:
        """Say why the server is not ready for clients, after a try to write; "" when it is."""
        if not (self._service.draining or self._service.lame or self._store.writer.failed):
            await self._probed.fresh()
        return self.problem

    async def _count(self) -> None:
        self.census = await self._store.health.census(await self._behind())

    async def _behind(self) -> list[int]:
        """Find the connected devices that have not acked all, a part of them a turn of the loop."""
        sessions, found = self._hub.started(), list[int]()
        for start in range(0, len(sessions), SESSIONS_A_TURN):
            part = sessions[start : start + SESSIONS_A_TURN]
            found += [one.device for one in part if one.outbox is not None and one.outbox.unacked]
            await asyncio.sleep(0)
        return found

    async def _probe(self) -> None:
        self._asked = time.monotonic()
        try:
            await self._store.health.probe()
            self._problem = ""
        except Exception as problem:
            self._problem = f"the store cannot be written: {problem}"
        finally:
            self._asked = 0.0
