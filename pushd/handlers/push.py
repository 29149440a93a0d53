"""What operators send from the server: to some people, to a group, to all.

A row does one step and is answered once that is durable; `push_next` goes on until `done`.
"""

import secrets
from typing import Annotated

from msgspec import Meta

from ..commands import Command, Context, Needs, Request
from ..draft import Draft, notice
from ..errors import BadField, Refusal
from ..model import Id, InfoIn, Integer, MailingOut, Maybe, Natural
from ..names import normal_phone
from ..session import Session
from ..status import Status
from ..store.mailing import Mailing

# Users that one `push` names.
MOST_USERS = 1000
# Random bytes of a clientId that the server makes.
CLIENT_ID_BYTES = 12

ClientId = Annotated[str, Meta(max_length=64)] | None


class Broadcast(Request):
    """The fields of `broadcast`: a text, or infos."""

    text: str | None = None
    info: list[InfoIn] | InfoIn | None = None
    expire: Natural | Maybe = None
    client_id: ClientId = None


class Push(Broadcast):
    """The fields of `push`: a message, and users, a phone or a group."""

    users: list[str] | Maybe = None
    phone: str | Integer | None = None
    group_id: Id | None = None


class PushNext(Request):
    """The fields of `push_next`: the clientId of a mailing."""

    client_id: ClientId = None


async def push(ctx: Context, session: Session, request: Push) -> MailingOut:
    """Send a message of the server's to users, in their system chats, or to a group."""
    draft = _draft(ctx, request)
    named = [name for name in ("users", "phone", "group_id") if getattr(request, name)]
    if not named:
        raise BadField("users", "name users, a phone or a group")
    if "group_id" in named and len(named) > 1:
        raise BadField("groupId", "name users or a group, not both")
    accounts = None if request.group_id else await _accounts(ctx, request)
    client_id = request.client_id or secrets.token_urlsafe(CLIENT_ID_BYTES)
    mailing = await ctx.store.mailings.begin(client_id, draft, accounts, request.group_id or "")
    return await _told(ctx, client_id, mailing)


async def broadcast(ctx: Context, session: Session, request: Broadcast) -> MailingOut:
    """Send a message of the server's to all accounts, in their system chats."""
    draft = _draft(ctx, request)
    client_id = request.client_id or secrets.token_urlsafe(CLIENT_ID_BYTES)
    mailing = await ctx.store.mailings.begin(client_id, draft, None)
    return await _told(ctx, client_id, mailing)


async def push_next(ctx: Context, session: Session, request: PushNext) -> MailingOut:
    """Do the next step of a push or broadcast that was written down."""
    if not request.client_id:
        raise BadField("clientId", "clientId is empty")
    mailing = await ctx.store.mailings.go_on(request.client_id)
    return await _told(ctx, request.client_id, mailing)


def _draft(ctx: Context, request: Broadcast) -> Draft:
    """Check what is to be sent, by the limits of clients' messages."""
    if bool(request.text) == bool(request.info):
        raise BadField("text", "give a text, or infos")
    infos = request.info or InfoIn("0", request.text)
    try:
        return notice(infos, int(request.expire or 0), ctx.config.limits)
    except BadField as problem:
        if request.text and problem.field.startswith("info"):
            raise BadField("text", problem.message) from None
        raise


async def _accounts(ctx: Context, request: Push) -> list[int]:
    """Find whom a request names, by rising id; puts their ids into it, as the audit shows them."""
    users = request.users or []
    if len(users) > MOST_USERS:
        raise BadField("users", f"users are at most {MOST_USERS}")
    found: set[int] = set()
    fields = [(f"users[{index}]", user) for index, user in enumerate(users)]
    if request.phone:
        fields.append(("phone", normal_phone(request.phone)))
    for field, user in fields:
        try:
            account = await ctx.store.overview.find(user)
        except Refusal as problem:
            raise Refusal(problem.status, problem.message, field=field) from None
        if account.disabled:
            raise Refusal(Status.NOT_ALLOWED, "this account is disabled", field=field)
        found.add(account.id)
    request.users, request.phone = [str(account) for account in sorted(found)], None
    return sorted(found)


async def _told(ctx: Context, client_id: str, mailing: Mailing) -> MailingOut:
    ids = await ctx.store.mailings.message_ids(mailing.number) if mailing.done else []
    return MailingOut(
        client_id,
        bool(mailing.done),
        mailing.place,
        mailing.final,
        mailing.reached,
        mailing.devices,
        mailing.skipped,
        [str(number) for number in ids],
    )


COMMANDS = (
    Command("push", push, Push, Needs.OPERATOR, audit=("users", "group_id", "client_id")),
    Command("broadcast", broadcast, Broadcast, Needs.OPERATOR, audit=("client_id",)),
    # What it does was written down with the row that began it.
    Command("push_next", push_next, PushNext, Needs.OPERATOR),
)
