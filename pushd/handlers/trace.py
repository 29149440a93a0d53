"""Where a message is, and what waits for whom: for operators, and never what people wrote."""

from typing import Annotated

from msgspec import Meta

from ..commands import Command, Context, Needs, OnUser, Page, PageSize
from ..draft import user_number
from ..errors import BadField, Refusal
from ..model import MAX_INT, Id, PlaceOut, TraceOut, WaitingOut
from ..session import Session
from ..status import Status
from ..store.tracing import Place, QueueRow
from .operator import PAGE_MAX, find

# Accounts in one answer of `trace`; their queues may be ten times as many.
PLACES_MAX = 100


class Trace(OnUser):
    """The fields of `trace`: a msgId, or a user and the clientId of their message."""

    msg_id: Id | None = None
    client_id: Annotated[str, Meta(max_length=64)] | None = None
    page: Id | None = None
    size: PageSize = None


class Queue(OnUser):
    """The fields of `queue`: of a user, or the deepest ones."""

    size: PageSize = None


async def trace(ctx: Context, session: Session, request: Trace) -> TraceOut:
    """Tell where a message is: accepted, committed, queued, sent, acked, read, recalled."""
    size = ctx.window(None, request.size, most=PLACES_MAX).size
    after = user_number(request.page)
    if request.page and not 0 < after <= MAX_INT:
        raise BadField("page", "page is the next of the page before")
    number = await _message(ctx, request)
    found = await ctx.store.tracing.trace(number, after, size)
    sent = ctx.control.sent({place.device for place in found.places} - {0}, number)
    return TraceOut(
        msg_id=str(number),
        chat_id=found.chat,
        kind=found.kind,
        type=found.type,
        from_id=str(found.sender) if found.sender else "",
        accepted=ctx.moment(found.accepted),
        committed=ctx.moment(found.committed),
        recalled=found.recalled is not None,
        recalled_at=ctx.moment(found.recalled or 0),
        expires=ctx.moment(found.expires),
        expired=found.expired,
        places=[_place(ctx, place, sent.get(place.device, (0, 0))) for place in found.places],
        next=str(found.next or ""),
    )


async def queue(ctx: Context, session: Session, request: Queue) -> Page:
    """List what waits for the devices of a user, or the deepest queues of all."""
    size = ctx.window(None, request.size, most=PAGE_MAX).size
    if request.user:
        account = await find(ctx, request)
        rows = await ctx.store.tracing.queues_of(account.id)
    else:
        rows = await ctx.store.tracing.deepest(size)
    return Page([_queue(ctx, row) for row in rows])


async def _message(ctx: Context, request: Trace) -> int:
    """Read which message is meant."""
    if request.client_id:
        if request.msg_id:
            raise BadField("clientId", "name a msgId or a clientId, not both")
        account = await find(ctx, request)
        return await ctx.store.tracing.find(account.id, request.client_id)
    if not request.msg_id:
        raise BadField("msgId", "msgId is empty: name one, or a user and a clientId")
    if request.user:
        raise BadField("user", "a user goes with a clientId")
    number = user_number(request.msg_id)
    if not 0 < number <= MAX_INT:
        raise Refusal(Status.NOT_FOUND, "no such message", field="msgId")
    return number


def _place(ctx: Context, place: Place, sent: tuple[int, int]) -> PlaceOut:
    state = "sent" if sent[1] and place.state == "queued" else place.state
    return PlaceOut(
        str(place.account),
        str(place.device or ""),
        state,
        place.device in ctx.hub.devices_of(place.account),
        place.seq,
        ctx.moment(sent[0]),
        sent[1],
        ctx.moment(place.acked),
        place.acked_exact,
        ctx.moment(place.read),
        place.read_exact,
    )


def _queue(ctx: Context, row: QueueRow) -> WaitingOut:
    account, device, line, name, seen, depth, oldest = row
    now = ctx.clock.wall()
    online = device in ctx.hub.devices_of(account)
    return WaitingOut(
        str(account),
        "" if line else str(device),
        name,
        depth,
        ctx.dates.text(oldest) if oldest else "",
        max(0, now - oldest) // 1000 if oldest else 0,
        online,
        "" if line else ctx.dates.text(now if online else seen),
    )


COMMANDS = (
    Command("trace", trace, Trace, Needs.OPERATOR),
    Command("queue", queue, Queue, Needs.OPERATOR, listing=True),
)
