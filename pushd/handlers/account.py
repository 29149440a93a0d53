"""A person's account: seeing it, completing it, and what others may know."""

from typing import Annotated

from msgspec import Meta

from ..commands import Command, Context, Needs, Request
from ..draft import user_number
from ..errors import BadField, Refusal
from ..model import AccountOut, Integer, Maybe
from ..names import check_username
from ..session import Session
from ..status import Status


class Account(Request):
    """The fields of `account`."""

    user_id: str | None = None


class CompleteAccount(Request):
    """The fields of `complete_account`; what is absent stays, and `""` clears `desc`."""

    user_id: str | None = None
    avatar: str | None = None
    username: str | None = None
    desc: Annotated[str, Meta(max_length=200)] | None = None
    sex: Integer | Maybe = None


class SetPrivacy(Request):
    """The fields of `set_privacy`; what is absent stays."""

    find_by_phone: bool | Maybe = None
    show_presence: bool | Maybe = None
    read_receipts: bool | Maybe = None


async def account(ctx: Context, session: Session, request: Account) -> AccountOut:
    """Show an account, one's own unless `userId` says another."""
    own = session.who.account
    user = user_id(request.user_id) if request.user_id else own
    seen = await ctx.store.accounts.as_seen(own, user)
    if user != own and not seen.user.is_friend:
        # Ids are numbers in a row: without a budget all users could be read one by one.
        ctx.spend(session, "profiles")
    return seen


async def complete_account(ctx: Context, session: Session, request: CompleteAccount) -> AccountOut:
    """Change what is given of one's own account."""
    actor = session.who
    if request.user_id and request.user_id != str(actor.account):
        raise Refusal(Status.NOT_ALLOWED, "this is not your account", field="userId")
    username: str | None = None
    if request.username:
        username = check_username(request.username, ctx.config.auth.reserved_names)
        if not username:
            raise Refusal(Status.NULL_USERNAME, field="username")
    profile: dict[str, str | int] = {}
    if request.avatar:
        profile["avatar"] = request.avatar
    if request.desc is not None:
        profile["desc"] = request.desc
    if request.sex is not None and request.sex != "":
        if request.sex not in (0, 1, 2):
            raise BadField("sex", "sex is 0, 1 or 2")
        profile["sex"] = request.sex
    await ctx.store.accounts.complete(actor, username, profile)
    return await ctx.store.accounts.as_seen(actor.account, actor.account)


async def set_privacy(ctx: Context, session: Session, request: SetPrivacy) -> AccountOut:
    """Choose what others may know; what is absent stays."""
    actor = session.who
    given = {
        "find_by_phone": request.find_by_phone,
        "show_presence": request.show_presence,
        "read_receipts": request.read_receipts,
    }
    choices = {name: value for name, value in given.items() if isinstance(value, bool)}
    await ctx.store.accounts.set_privacy(actor, choices)
    return await ctx.store.accounts.as_seen(actor.account, actor.account)


def user_id(text: str | None, field: str = "userId") -> int:
    """Read a user id that must be there; raises BadField, or 6004 for an impossible one."""
    if not text:
        raise BadField(field, f"{field} is empty")
    number = user_number(text)
    if not number:
        raise Refusal(Status.NULL_USER, field=field)
    return number


COMMANDS = (
    Command("account", account, Account, Needs.SESSION),
    Command("complete_account", complete_account, CompleteAccount, Needs.SESSION),
    Command("set_privacy", set_privacy, SetPrivacy, Needs.SESSION),
)
