"""The row behind `pushctl top`: all that changes from second to second, in one reply."""

import heapq

from ..commands import Command, Context, Needs, Request
from ..errors import BadField
from ..model import Maybe, Natural, QueueOut, SessionOut, TopOut
from ..session import Session
from .operator import session_out

# Devices and queues that are shown, if not as asked for, and at most.
SHOWN = 10
MOST = 20
# Sessions that are looked at before others have their turn.
SESSIONS_A_TURN = 1000


class Top(Request):
    """The fields of `top`: how many devices and queues to show."""

    size: Natural | Maybe = None


async def top(ctx: Context, session: Session, request: Top) -> TopOut:
    """Tell all metrics, the connected devices that are most behind, and the longest queues."""
    size = SHOWN if request.size in (None, "") else int(request.size)
    if not 1 <= size <= MOST:
        raise BadField("size", f"size is 1 to {MOST}")
    slowest = await _slowest(ctx, size)
    census = await ctx.control.census()
    queues = [
        QueueOut(str(account), str(device) if device else "", waiting)
        for device, account, waiting in census.largest[:size]
    ]
    return TopOut(ctx.control.metrics(), slowest, queues)


async def _slowest(ctx: Context, size: int) -> list[SessionOut]:
    """Find who takes or acks least, a part of all sessions a turn of the loop."""
    sessions = ctx.hub.started()
    found: list[tuple[int, int, int]] = []  # messages, number of the connection, place
    for start in range(0, len(sessions), SESSIONS_A_TURN):
        part = sessions[start : start + SESSIONS_A_TURN]
        behind = [
            (one.outbox.unacked, one.number, start + place)
            for place, one in enumerate(part)
            if one.outbox is not None and one.outbox.unacked
        ]
        found = heapq.nlargest(size, [*found, *behind])
        await ctx.clock.sleep(0)
    chosen = (sessions[place] for _, _, place in found)
    return [session_out(ctx, one) for one in chosen if one.outbox is not None]


COMMANDS = (Command("top", top, Top, Needs.OPERATOR),)
