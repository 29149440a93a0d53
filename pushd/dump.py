"""What a running server is doing, as lines of its log: asked for by USR1.

Counts for all, and details of the few connections that hold most. There are no addresses of
people, no names, phones or pushIds in it, so that it can be shown to somebody who helps.
"""

import asyncio
import heapq
from collections import Counter

import structlog

from .service import Peer, Service

log = structlog.get_logger("pushd.dump")

# Connections, and kinds of tasks, that are told one by one.
MOST = 20


def dump(service: Service) -> None:
    """Log the state of the server; takes time in proportion to its connections."""
    ctx, stats = service.ctx, service.stats
    writer = ctx.store.writer
    outboxes = [one.outbox for one in ctx.hub.started() if one.outbox is not None]
    log.info(
        "state: connections",
        open=len(service.connections),
        accepted=stats.accepted,
        states=Counter(peer.session.state.name for peer in service.connections),
        devices=len(ctx.hub),
        draining=service.draining,
    )
    log.info(
        "state: queues",
        lagging=sum(outbox.lagging for outbox in outboxes),
        pending=sum(outbox.held[0] for outbox in outboxes),
        in_flight=sum(outbox.held[1] for outbox in outboxes),
        frames=stats.frames,
        delivered=stats.delivered,
        refusals=dict(stats.refusals),
    )
    log.info(
        "state: store",
        waiting=writer.waiting,
        batches=writer.batches,
        saturated=writer.saturated,
        full=writer.full,
        failed=writer.failed is not None,
        passwords=ctx.hasher.jobs,
    )
    budgets = {name: len(budget) for name, budget in ctx.budgets.items()}
    log.info("state: budgets", **budgets, turns=len(ctx.turns))
    tasks = Counter(_name_of(task) for task in asyncio.all_tasks())
    log.info("state: tasks", **dict(tasks.most_common(MOST)))
    for peer in heapq.nlargest(MOST, service.connections, key=_weight):
        session = peer.session
        pending, in_flight = session.outbox.held if session.outbox is not None else (0, 0)
        log.info(
            "state: connection",
            connection=session.number,
            user=session.account,
            device=session.device,
            state=session.state.name,
            pending=pending,
            in_flight=in_flight,
            lagging=session.outbox is not None and session.outbox.lagging,
        )


def _weight(peer: Peer) -> int:
    outbox = peer.session.outbox
    return sum(outbox.held) if outbox is not None else -1


def _name_of(task: "asyncio.Task[object]") -> str:
    # One that is compiled has only a class, named after it.
    work = task.get_coro()
    return getattr(work, "__qualname__", type(work).__name__).replace(".", "_")
