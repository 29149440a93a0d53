"""What the server does now and then: old things go, unused files and memory, the log's size.

Each piece of work is small steps with rests between them, so nobody waits for it; what fails is
logged and tried again at its next time.
"""

import asyncio
import ctypes
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import structlog

from .clock import DAY_MS, HOUR_MS, Clock
from .commands import Context
from .handlers.file import sweep
from .handlers.operator import write_attempts

log = structlog.get_logger("pushd.server")

Work = Callable[[Context], Awaitable[None]]

HOUR = 3600.0
# How often the size of the store's log is looked at, in seconds.
LOG_PERIOD = 15.0
# How often the logins of the last seconds are written down.
AUDIT_PERIOD = 5.0
# How often memory is given back.
MEMORY_PERIOD = 30.0
# How many rows one step removes, and of devices, which have a queue each; its rest, in seconds.
ROWS, DEVICES = 1000, 10
REST = 0.01


def begin(ctx: Context, loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[None]]:
    """Begin all that is done for as long as the server runs; the caller cancels it."""
    work: tuple[tuple[float, Work], ...] = (
        (HOUR, maintain),
        (HOUR, sweep),
        (LOG_PERIOD, tend_log),
        (AUDIT_PERIOD, write_attempts),
        (MEMORY_PERIOD, give_back),
    )
    return [loop.create_task(_repeat(ctx, seconds, one)) for seconds, one in work]


async def _repeat(ctx: Context, seconds: float, work: Work) -> None:
    clock: Clock = ctx.clock
    while True:
        try:
            await work(ctx)
        except Exception as problem:
            # A full disk or a busy store; a store that failed ends the server elsewhere.
            log.warning("upkeep failed", work=work.__name__, problem=problem)
        await clock.sleep(seconds)


async def tend_log(ctx: Context) -> None:
    """Keep the store's log small, and say so when another program prevents it."""
    size = await ctx.store.tend_log()
    if size:
        log.warning(
            "the store's log cannot shrink: a program holds a long read transaction", bytes=size
        )


async def give_back(ctx: Context) -> None:
    """Give the system what the C library keeps: much, after many have been here with full windows.

    It takes a few milliseconds of a thread; the C library of some systems cannot.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        await asyncio.to_thread(trim, 0)


async def maintain(ctx: Context) -> None:
    """Remove what is too old, in small steps."""
    await forget(ctx)
    store, queue, limits = ctx.store, ctx.config.queue, ctx.config.limits
    online = ctx.hub.devices()
    for start in range(0, len(online), ROWS):
        await store.devices.seen_now(online[start : start + ROWS])
    now = ctx.clock.wall()
    old_client_ids = now - limits.client_id_days * DAY_MS
    steps: tuple[Callable[[], Awaitable[Any]], ...] = (
        partial(store.devices.drop_unseen, now - queue.device_days * DAY_MS, DEVICES),
        partial(store.messages.free_client_ids, old_client_ids, ROWS),
        partial(store.audit.trim, ROWS),
        partial(store.tracing.trim, ROWS),
        partial(store.mailings.trim, old_client_ids, DEVICES),
    )
    for step in steps:
        while await step():
            await ctx.clock.sleep(REST)


async def forget(ctx: Context) -> None:
    """Let queues expire, then history, then messages that have had an end of their own."""
    config, now, retention = ctx.config, ctx.clock.wall(), ctx.store.retention
    queues = now - config.queue.days * DAY_MS
    history = now - config.store.history_days * DAY_MS if config.store.history_days else 0
    # An hour ahead: what moves from queue to queue meanwhile is found before its message goes.
    await retention.expire_queues(max(queues, history + HOUR_MS if history else 0))
    if history:
        await retention.forget(history)
    # Repeats of a message are known by it, and a queue names it, for so long.
    kept = max(config.queue.days, config.limits.client_id_days)
    await retention.forget_expired(now - kept * DAY_MS - HOUR_MS)
