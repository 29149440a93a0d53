"""People's rights over what is stored about them, and reports to the operator."""

from typing import Annotated

from msgspec import Meta

from ..commands import Command, Context, Needs, Request
from ..draft import user_number
from ..errors import BadField, Refusal
from ..model import Empty, Id
from ..names import check_password
from ..session import Session
from ..status import Status
from .account import user_id
from .login import check_own_password


class DeleteAccount(Request):
    """The fields of `delete_account`."""

    password: str | None = None


class Report(Request):
    """The fields of `report`: a user or a message, and why."""

    user_id: Id | None = None
    msg_id: Id | None = None
    reason: Annotated[str, Meta(max_length=500)] | None = None


async def delete_account(ctx: Context, session: Session, request: DeleteAccount) -> Empty:
    """Remove the caller's account; the connection is as before the login then."""
    actor = session.who
    password = check_password(request.password, ctx.config.auth.min_password)
    await check_own_password(ctx, session, password, "password")
    await ctx.store.lifecycle.delete(actor)
    ctx.hub.revoke(actor.account, session)
    ctx.hub.logout(session)
    return Empty()


async def report(ctx: Context, session: Session, request: Report) -> Empty:
    """Tell the operator about a user or a message."""
    actor = session.who
    reason = (request.reason or "").strip()
    if not reason:
        raise BadField("reason", "reason is empty")
    message = 0
    if request.msg_id:
        message = user_number(request.msg_id)
        if not message:
            raise Refusal(Status.NOT_FOUND, "no such message", field="msgId")
    user = 0 if message else user_id(request.user_id)
    await ctx.store.lifecycle.report(actor, user, message, reason)
    return Empty()


COMMANDS = (
    Command("delete_account", delete_account, DeleteAccount, Needs.SESSION),
    Command("report", report, Report, Needs.SESSION),
)
