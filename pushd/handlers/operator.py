"""What operators do, by the control socket only: looking, ending sessions, accounts, the server.

A row that changes something names in `audit` which of its fields are written down.
"""

import heapq
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal

from msgspec import Meta

from .. import protocol
from ..commands import Command, Context, Needs, OnUser, Page, Paged, Request, Window, listed
from ..encoding import encode
from ..errors import BadField, PushdError, Refusal
from ..model import (
    MAX_INT,
    Account,
    AuditOut,
    EvictedOut,
    Integer,
    LevelOut,
    Maybe,
    Natural,
    OperatorUserOut,
    PasswordOut,
    ReportOut,
    SessionOut,
    StatsOut,
    UserIdOut,
)
from ..names import check_username, normal_phone
from ..session import Session
from ..status import Status
from ..store.overview import UserRow
from .login import check_new_password

# The largest page of an operator's list.
PAGE_MAX = 1000
# Random bytes of a password that the server makes.
PASSWORD_BYTES = 12
CLOSED = protocol.error(
    "",
    Refusal(Status.RESTARTING, "closed by the operator", retry_after=3),
    event={"name": "shutdown"},
)


class Stats(Request):
    """The fields of `stats`."""

    counts: bool | None = None


class Users(Paged):
    """The fields of `users`."""

    text: Annotated[str, Meta(max_length=300)] | None = None


class Sessions(Paged):
    """The fields of `sessions`: all of them, or a user's."""

    user: str | None = None


class Evict(OnUser):
    """The fields of `evict`: one connection, or all of a user."""

    connection: Natural | Maybe = None


class ResetPassword(OnUser):
    """The fields of `reset_password`; without a password the server makes one."""

    password: str | None = None


class RegisterUser(Request):
    """The fields of `register_user`; without a password the server makes one."""

    phone: str | Integer | None = None
    username: str | None = None
    password: str | None = None


class LogLevel(Request):
    """The fields of `loglevel`."""

    level: Literal["debug", "info", "warning", "error", ""] | None = None


class Reports(Paged):
    """The fields of `reports`; `done` shows those too that are done with."""

    done: bool | None = None


class CloseReport(Request):
    """The fields of `close_report`."""

    number: Natural | Maybe = None


class Audit(Paged):
    """The fields of `audit`: of a user, and not older than `since` (ms since 1970)."""

    user: str | None = None
    since: Natural | Maybe = None


async def find(ctx: Context, request: OnUser) -> Account:
    """Find whom a request names, and put their id into it, as the audit shows it.

    Raises: BadField without a user, Refusal 6004 for nobody.
    """
    if not request.user:
        raise BadField("user", "user is empty: name an id, a phone or an exact name")
    account = await ctx.store.overview.find(request.user)
    request.user = str(account.id)
    return account


# --- looking --------------------------------------------------------------------------------


async def stats(ctx: Context, session: Session, request: Stats) -> StatsOut:
    """Tell how the server does; with `counts` also how much the store holds."""
    told = ctx.control.stats()
    writer = ctx.store.writer
    told.waiting, told.commits, told.disk_full = writer.waiting, writer.batches, writer.full
    told.schema, told.store_bytes, told.log_bytes = await ctx.store.overview.sizes()
    if request.counts:
        told.counts = await ctx.store.overview.counts()
    return told


async def users(ctx: Context, session: Session, request: Users) -> Page:
    """List users whose name or phone holds a text, or all of them."""
    window = ctx.window(request.page, request.size, most=PAGE_MAX)
    after = window.key[0] if window.key else 0
    text = request.text or ""
    rows = await ctx.store.overview.users(text, after, window.skip, window.size + 1)
    return _page(ctx, [_user(ctx, row) for row in rows], window, lambda user: (int(user.user_id),))


async def online(ctx: Context, session: Session, request: Paged) -> Page:
    """List users who have a session now."""
    window = ctx.window(request.page, request.size, most=PAGE_MAX)
    after = window.key[0] if window.key else 0
    numbers = _behind(ctx.hub.accounts(), after, window.skip, window.size + 1)
    rows = await ctx.store.overview.users_of(numbers[: window.size])
    more = listed(numbers, window, lambda number: (number,)).next
    return Page([_user(ctx, row) for row in rows], more)


async def sessions(ctx: Context, session: Session, request: Sessions) -> Page:
    """List connections by their number, all of them or those of a user."""
    window = ctx.window(request.page, request.size, most=PAGE_MAX)
    after = window.key[0] if window.key else 0
    chosen = ctx.control.connections()
    if request.user:
        account = await ctx.store.overview.find(request.user)
        chosen = ctx.hub.sessions_of(account.id)
    known = {one.number: one for one in chosen}
    numbers = _behind(known, after, window.skip, window.size + 1)
    found = [session_out(ctx, known[number]) for number in numbers]
    return _page(ctx, found, window, lambda one: (one.connection,))


async def audit(ctx: Context, session: Session, request: Audit) -> Page:
    """List what operators did and who logged in, newest first."""
    window = ctx.window(request.page, request.size, most=PAGE_MAX)
    before = window.key[0] if window.key else MAX_INT
    account = (await ctx.store.overview.find(request.user)).id if request.user else 0
    # What the last seconds brought is there too, unless the disk is full.
    with suppress(PushdError):
        await write_attempts(ctx)
    since = int(request.since or 0)
    rows = await ctx.store.audit.page(account, since, before, window.skip, window.size + 1)
    entries = [
        AuditOut(number, ctx.dates.text(time), actor, action, _id(about), detail, outcome, count)
        for number, time, actor, action, about, detail, outcome, count in rows
    ]
    return _page(ctx, entries, window, lambda entry: (entry.number,))


async def reports(ctx: Context, session: Session, request: Reports) -> Page:
    """List what people reported, newest first."""
    window = ctx.window(request.page, request.size, most=PAGE_MAX)
    before = window.key[0] if window.key else MAX_INT
    done = bool(request.done)
    rows = await ctx.store.audit.reports(before, window.skip, window.size + 1, done=done)
    text = ctx.dates.text
    found = [
        ReportOut(
            number,
            text(made),
            _id(by),
            _id(user),
            _id(message),
            reason,
            text(closed) if closed else "",
        )
        for number, by, user, message, reason, made, closed in rows
    ]
    return _page(ctx, found, window, lambda report: (report.number,))


# --- sessions and accounts ------------------------------------------------------------------


async def evict(ctx: Context, session: Session, request: Evict) -> EvictedOut:
    """Close a connection, or all of a user, with a last frame; they may come back."""
    number = request.connection
    if number in (None, ""):
        account = await find(ctx, request)
        chosen = list(ctx.hub.sessions_of(account.id))
    elif request.user:
        raise BadField("connection", "name a connection or a user, not both")
    else:
        chosen = [one for one in ctx.control.connections() if one.number == number]
    if not chosen:
        raise Refusal(Status.NOT_FOUND, "there is no such connection", field="connection")
    if session in chosen:
        raise Refusal(Status.NOT_ALLOWED, "this is your own connection", field="connection")
    owner = request.user or _id(chosen[0].account)
    for one in chosen:
        one.link.evict(CLOSED, "evicted")
    return EvictedOut(owner, len(chosen))


async def disable(ctx: Context, session: Session, request: OnUser) -> UserIdOut:
    """Let an account do nothing; its sessions and devices end."""
    return await _set_disabled(ctx, request, True)


async def enable(ctx: Context, session: Session, request: OnUser) -> UserIdOut:
    """Let a disabled account log in again."""
    return await _set_disabled(ctx, request, False)


async def _set_disabled(ctx: Context, request: OnUser, disabled: bool) -> UserIdOut:
    account = await find(ctx, request)
    if account.disabled == disabled:
        state = "disabled" if disabled else "active"
        raise Refusal(Status.NOT_ALLOWED, f"this account is {state} already", field="user")
    await ctx.store.lifecycle.set_disabled(account.id, disabled)
    return UserIdOut(str(account.id))


async def reset_password(ctx: Context, session: Session, request: ResetPassword) -> PasswordOut:
    """Give an account another password; its sessions and devices end."""
    account = await find(ctx, request)
    password, made = _password(ctx, request.password)
    hashed = await ctx.hasher.hash(password)
    await ctx.store.lifecycle.set_password(account.id, hashed)
    return PasswordOut(str(account.id), made)


async def register_user(ctx: Context, session: Session, request: RegisterUser) -> PasswordOut:
    """Make an account, as `register` does; reserved names are allowed."""
    phone = normal_phone(request.phone)
    username = check_username(request.username)
    password, made = _password(ctx, request.password)
    hashed = await ctx.hasher.hash(password)
    account = await ctx.store.accounts.register(phone, hashed, username)
    return PasswordOut(str(account.id), made)


async def unregister(ctx: Context, session: Session, request: OnUser) -> UserIdOut:
    """Delete an account, as `delete_account` does."""
    account = await find(ctx, request)
    await ctx.store.lifecycle.remove(account.id)
    return UserIdOut(str(account.id))


async def close_report(ctx: Context, session: Session, request: CloseReport) -> UserIdOut:
    """Note that a report is done with."""
    user = await ctx.store.audit.close_report(int(request.number or 0))
    return UserIdOut(_id(user))


# --- the server -----------------------------------------------------------------------------


async def loglevel(ctx: Context, session: Session, request: LogLevel) -> LevelOut:
    """Change the least that is logged, if a level is given; tells it."""
    return LevelOut(ctx.control.log_level(request.level or ""))


async def reload(ctx: Context, session: Session, request: Request) -> object:
    """Read the settings again."""
    return await ctx.reload()


async def stop(ctx: Context, session: Session, request: Request) -> StatsOut:
    """Shut the server down, in order; gives its last counters."""
    ctx.control.stop()
    return ctx.control.stats()


# --- helpers --------------------------------------------------------------------------------


async def write_attempts(ctx: Context) -> None:
    """Write down the logins since the last time, with one commit."""
    entries = ctx.attempts.take()
    if not entries:
        return
    try:
        await ctx.store.audit.add_logins(entries)
    except PushdError:
        ctx.attempts.put_back(entries)
        raise


def _page(
    ctx: Context, entries: list[Any], window: Window, key: Callable[[Any], Sequence[int]]
) -> Page:
    """Make a page that fits into a reply; it may end early, but never before its first entry."""
    room = ctx.config.limits.reply // 2
    for count, entry in enumerate(entries[: window.size]):
        room -= len(encode(entry))
        if room < 0 and count:
            window.size = count
            break
    return listed(entries, window, key)


def _behind(numbers: Iterable[int], after: int, skip: int, size: int) -> list[int]:
    """Give the `size` lowest numbers behind one, without sorting all of them."""
    return heapq.nsmallest(skip + size, (one for one in numbers if one > after))[skip:]


def _user(ctx: Context, row: UserRow) -> OperatorUserOut:
    number, name, phone, disabled, devices, seen, created = row
    now = len(ctx.hub.devices_of(number))
    text = ctx.dates.text
    return OperatorUserOut(
        str(number),
        name,
        phone,
        "disabled" if disabled else "active",
        devices,
        now,
        text(ctx.clock.wall()) if now else text(seen) if seen else "",
        text(created),
    )


def session_out(ctx: Context, session: Session) -> SessionOut:
    """Show a connection as operators see it."""
    seconds, waiting = ctx.control.facts(session)
    state = "operator" if session.operator else session.state.name.lower().replace("_", " ")
    return SessionOut(
        session.number,
        _id(session.account),
        _id(session.device),
        session.address,
        state,
        int(seconds),
        session.outbox.unacked if session.outbox is not None else 0,
        waiting,
    )


def _password(ctx: Context, given: str | None) -> tuple[bytes, str]:
    """Check a new password, or make one; gives it to hash, and to show if it was made."""
    made = "" if given else secrets.token_urlsafe(PASSWORD_BYTES)
    return check_new_password(ctx, given or made), made


def _id(number: int) -> str:
    return str(number) if number else ""


COMMANDS = (
    Command("stats", stats, Stats, Needs.OPERATOR),
    Command("users", users, Users, Needs.OPERATOR, listing=True),
    Command("online", online, Paged, Needs.OPERATOR, listing=True),
    Command("sessions", sessions, Sessions, Needs.OPERATOR, listing=True),
    Command("audit", audit, Audit, Needs.OPERATOR, listing=True),
    Command("reports", reports, Reports, Needs.OPERATOR, listing=True),
    Command("evict", evict, Evict, Needs.OPERATOR, audit=("connection", "user")),
    Command("disable", disable, OnUser, Needs.OPERATOR, audit=("user",)),
    Command("enable", enable, OnUser, Needs.OPERATOR, audit=("user",)),
    Command("reset_password", reset_password, ResetPassword, Needs.OPERATOR, audit=("user",)),
    Command("register_user", register_user, RegisterUser, Needs.OPERATOR, audit=("username",)),
    Command("unregister", unregister, OnUser, Needs.OPERATOR, audit=("user",)),
    Command("close_report", close_report, CloseReport, Needs.OPERATOR, audit=("number",)),
    Command("loglevel", loglevel, LogLevel, Needs.OPERATOR, audit=("level",)),
    Command("reload", reload, Request, Needs.OPERATOR, audit=()),
    Command("stop", stop, Request, Needs.OPERATOR, audit=()),
)
