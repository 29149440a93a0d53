"""Registering, logging in and out, and binding a device to the connection."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from ..commands import Command, Context, Needs, Request
from ..common import common_passwords
from ..errors import Refusal, TooMany
from ..model import Account, AccountOut, Actor, Bound, DeviceOut, Empty, Frame, Integer
from ..names import check_password, check_username, normal_phone
from ..outbox import Outbox
from ..protocol import reply
from ..session import ACCEPTS, Session, State
from ..status import Status

log = structlog.get_logger("pushd.login")

DAY = 86_400_000  # milliseconds
# The least length of a known password: a larger `min_password` is about new ones only.
SHORTEST = 6


class Register(Request):
    """The fields of `register`."""

    phone: str | Integer | None = None
    password: str | None = None
    username: str | None = None


class Login(Request):
    """The fields of `login`."""

    phone: str | Integer | None = None
    password: str | None = None


class ChangePassword(Request):
    """The fields of `change_password`."""

    old: str | None = None
    new: str | None = None


class SignOut(Request):
    """The fields of `sign_out`."""

    device_id: str | None = None


async def register(ctx: Context, session: Session, request: Register) -> AccountOut:
    """Make an account and log the connection in."""
    password = check_new_password(ctx, request.password)
    phone = normal_phone(request.phone)
    username = check_username(request.username, ctx.config.auth.reserved_names)
    hashed = await ctx.hasher.hash(password)
    account = await ctx.store.accounts.register(phone, hashed, username)
    _log_in(ctx, session, account)
    log.info("registered")
    return await ctx.store.accounts.as_seen(account.id, account.id)


async def login(ctx: Context, session: Session, request: Login) -> AccountOut:
    """Log the connection in; wrong passwords cost growing waits."""
    password = check_known_password(ctx, request.password)
    phone = normal_phone(request.phone)
    account = await ctx.store.accounts.by_phone(phone)
    trusted = account is not None and await _trusted(ctx, session, account)
    if not trusted:
        slow = ctx.penalties.slowdown(phone, ctx.clock.now())
        if slow:
            await ctx.clock.sleep(slow)
    number = account.id if account else 0
    async with _guess(ctx, session, phone, "login", number, trusted=trusted):
        if account is None and not ctx.config.auth.hide_unknown_users:
            raise Refusal(Status.NULL_USER, field="phone")
        right = await ctx.hasher.check(password, account.password if account else None)
        if account is None or not right:
            raise Refusal(Status.ERROR_PASSWORD, field="password")
    if account.disabled:
        ctx.attempts.note("login", account.id, session.address, "disabled")
        raise Refusal(Status.NOT_ALLOWED, "this account is disabled")
    await _renew_hash(ctx, account, password)
    known = account
    await ctx.store.accounts.enter(
        known,
        session.network if ctx.config.limits.per_address else "",
        then=lambda _: _log_in(ctx, session, known),
    )
    ctx.attempts.note("login", known.id, session.address, "ok")
    log.info("logged in")
    return await ctx.store.accounts.as_seen(known.id, known.id)


async def logout(ctx: Context, session: Session, request: Request) -> Empty:
    """End the device of this connection, which is as before the login then.

    Another connection may have taken the device over since this was asked: that one is told.
    """
    actor = session.who
    await ctx.store.devices.logout(
        actor, then=lambda _: ctx.hub.sign_out(actor.device, keep=session)
    )
    log.info("logged out")
    ctx.hub.logout(session)
    return Empty()


async def change_password(ctx: Context, session: Session, request: ChangePassword) -> AccountOut:
    """Change the password; every other login of the account ends."""
    actor = session.who
    old = check_known_password(ctx, request.old, "old")
    new = check_new_password(ctx, request.new, "new")
    await check_own_password(ctx, session, old, "old")
    hashed = await ctx.hasher.hash(new)

    def changed(fresh: Actor) -> None:
        # The others end also when this connection has ended; a login by the new one is no other.
        if session.state is not State.ENDED:
            session.actor = fresh
        ctx.hub.revoke(actor.account, session, actor.device)

    await ctx.store.accounts.change_password(actor, hashed, then=changed)
    return await ctx.store.accounts.as_seen(actor.account, actor.account)


async def devices(ctx: Context, session: Session, request: Request) -> list[DeviceOut]:
    """List the caller's devices, never with a pushId."""
    rows = await ctx.store.devices.of(session.account)
    online = set(ctx.hub.devices_of(session.account))
    return [
        DeviceOut(
            str(device),
            name,
            ctx.dates.text(ctx.clock.wall() if device in online else seen),
            device in online,
            device == session.device,
        )
        for device, name, seen in rows
    ]


async def sign_out(ctx: Context, session: Session, request: SignOut) -> Empty:
    """End another device of the caller's; its connection gets a last frame."""
    text = request.device_id or ""
    if not text:
        raise Refusal(Status.BAD_FIELD, "deviceId is empty", field="deviceId")
    device = int(text) if text.isascii() and text.isdigit() and len(text) < 17 else 0
    if device == session.device:
        raise Refusal(Status.NOT_ALLOWED, "this is the device in use: log out", field="deviceId")
    await ctx.store.devices.sign_out(session.who, device)
    return Empty()


# --- start and restart ------------------------------------------------------------------------


async def start(ctx: Context, session: Session, frame: Frame) -> bytes:
    """Bind a device to the login: the one named, else a new one."""
    actor = session.who
    _refuse_second(session)
    if frame.push_id:
        try:
            return await _resume(ctx, session, frame, actor)
        except Refusal as problem:
            if problem.status != Status.ERROR_NET or problem.field != "pushId":
                raise
    push_id = ctx.token()
    # The device that is longest offline makes room: who has just gone is not that one.
    ctx.store.hand_in_seen()
    bound = await ctx.store.devices.create(
        actor,
        _digest(push_id),
        frame.device or "",
        most=ctx.config.limits.devices,
        online=ctx.hub.devices_of(session.account),
        answering=ctx.hub.answering_devices_of(session.account),
        then=lambda bound: _bind(ctx, session, bound, push_id, fresh=True),
    )
    log.info("started", device=bound.actor.device, queued=bound.queued)
    return await _started(ctx, session, frame, bound)


async def restart(ctx: Context, session: Session, frame: Frame) -> bytes:
    """Take a device up again by its pushId, without a login."""
    _refuse_second(session)
    try:
        return await _resume(ctx, session, frame, session.actor)
    except Refusal as problem:
        if problem.status == Status.ERROR_NET:
            log.info("wrong pushId", address=session.address)
            ctx.spend(session, "wrong_push_ids")
        raise


GATES = {"start": start, "restart": restart}


async def _resume(ctx: Context, session: Session, frame: Frame, actor: Actor | None) -> bytes:
    push_id = frame.push_id or ""
    if not push_id:
        raise Refusal(Status.ERROR_NET, "this pushId is not known", field="pushId")
    if ctx.config.limits.per_address:
        wait = ctx.budgets["wrong_push_ids"].peek(session.network, ctx.clock.now())
        if wait:
            ctx.budgets["wrong_push_ids"].refused += 1
            raise TooMany(wait)
    bound = await ctx.store.devices.bind(
        _digest(push_id),
        actor,
        frame.device or "",
        oldest=ctx.clock.wall() - ctx.config.queue.device_days * DAY,
        then=lambda bound: _bind(ctx, session, bound, push_id),
    )
    # At info the line of its end tells it all: phones come and go, and each line takes space.
    log.debug("started again", device=bound.actor.device, queued=bound.queued)
    return await _started(ctx, session, frame, bound)


def _bind(
    ctx: Context, session: Session, bound: Bound, push_id: str, *, fresh: bool = False
) -> None:
    """Register the device in the turn of its commit, so that it misses nothing after it."""
    if session.state is State.ENDED:
        if fresh:
            # Nobody will ever know its pushId: what waits goes back into the line.
            ctx.store.discard(bound.actor)
        return
    # An ack of the connection that is replaced would move the queue under the new one.
    ctx.store.forget_ack(bound.actor)
    limits = ctx.config.limits
    outbox = Outbox(
        bound.acked, bound.last, max_count=limits.window_messages, max_bytes=limits.window_bytes
    )
    ctx.hub.bind(session, bound, push_id, outbox)
    session.proven = not fresh


async def _started(ctx: Context, session: Session, frame: Frame, bound: Bound) -> bytes:
    limits = ctx.config.limits
    wanted = frame.heartbeat or limits.heartbeat
    session.heartbeat = min(max(wanted, limits.heartbeat_min), limits.heartbeat_max)
    session.accept(frame.accept or [])
    if session.accepts & ACCEPTS["presence"]:
        ctx.hub.watch(session, await ctx.store.friends.ids(bound.actor.account))
    return reply(
        session.push_id,
        "ok",
        frame.id,
        heartbeat=session.heartbeat,
        userId=str(bound.actor.account),
        queued=bound.queued,
        first=bound.first,
        last=bound.last,
        epoch=bound.epoch,
    )


def _refuse_second(session: Session) -> None:
    if session.outbox is not None:
        raise Refusal(Status.ERROR_REPEAT_LOGIN, "this connection has a device already")


async def check_own_password(ctx: Context, session: Session, password: bytes, field: str) -> None:
    """Check the password of who is logged in; raises Refusal 10000, and TooMany for guessing."""
    account = await ctx.store.accounts.by_id(session.who.account)
    if account is None:
        raise Refusal(Status.ERROR_NET)
    async with _guess(ctx, session, account.phone, "password", account.id):
        if not await ctx.hasher.check(password, account.password):
            raise Refusal(Status.ERROR_PASSWORD, field=field)


@asynccontextmanager
async def _guess(
    ctx: Context,
    session: Session,
    phone: str,
    action: str,
    account: int,
    *,
    trusted: bool = False,
) -> AsyncIterator[None]:
    """Hold one attempt at a password: attempts at an account from an address go in turn.

    A wrong password and an unknown user cost the same. Raises TooMany while the address waits,
    unless it is trusted; without budgets per address nobody waits, or a guesser could lock an
    account whose owner has the same address.
    """
    key = (phone, session.network)
    async with ctx.turns.of(key):
        wait = ctx.penalties.check(key, ctx.clock.now())
        if wait and ctx.config.limits.per_address and not trusted:
            ctx.penalties.refused += 1
            ctx.attempts.note(action, account, session.address, "limited")
            raise TooMany(wait, "too many wrong passwords")
        try:
            yield
        except Refusal as problem:
            if problem.status in (Status.NULL_USER, Status.ERROR_PASSWORD):
                log.info("wrong password", status=int(problem.status), address=session.address)
                ctx.penalties.failed(key, ctx.clock.now())
                outcome = "wrong password" if account else "unknown user"
                ctx.attempts.note(action, account, session.address, outcome)
            raise
        ctx.penalties.succeeded(key, ctx.clock.now())


async def _renew_hash(ctx: Context, account: Account, password: bytes) -> None:
    """Hash a password anew whose hash has another cost; when all hashers are busy, next time."""
    if not ctx.hasher.outdated(account.password):
        return
    try:
        renewed = await ctx.hasher.hash(password)
        await ctx.store.accounts.renew_hash(account.id, account.password, renewed)
    except Refusal as problem:
        log.info("the hash was not renewed", account=account.id, problem=str(problem))


async def _trusted(ctx: Context, session: Session, account: Account) -> bool:
    """Tell whether this address logged in to this account not long ago."""
    if not ctx.config.limits.per_address:
        return False
    since = ctx.clock.wall() - ctx.config.limits.trust_days * DAY
    return await ctx.store.accounts.knows_address(account.id, session.network, since)


def check_new_password(ctx: Context, value: str | None, field: str = "password") -> bytes:
    """Give the bytes of a password that somebody chooses; raises Refusal."""
    auth = ctx.config.auth
    common = common_passwords() if auth.refuse_common else ()
    return check_password(value, auth.min_password, field=field, common=common)


def check_known_password(ctx: Context, value: str | None, field: str = "password") -> bytes:
    """Give the bytes of a password that may be older than the rules for new ones."""
    return check_password(value, min(SHORTEST, ctx.config.auth.min_password), field=field)


def _log_in(ctx: Context, session: Session, account: Account) -> None:
    """Register a login; in the turn of its commit, so that no change of password misses it."""
    if session.state is State.ENDED:
        return
    ctx.hub.login(session, Actor(account.id, 0, account.generation))
    session.show_presence = account.show_presence
    session.read_receipts = account.read_receipts


def _digest(push_id: str) -> bytes:
    return hashlib.sha256(push_id.encode()).digest()


COMMANDS = (
    Command("register", register, Register, Needs.STRANGER, budget="registers"),
    Command("login", login, Login, Needs.STRANGER, budget="logins"),
    Command("logout", logout, Request, Needs.SESSION),
    Command("change_password", change_password, ChangePassword, Needs.SESSION),
    Command("devices", devices, Request, Needs.SESSION, listing=True),
    Command("sign_out", sign_out, SignOut, Needs.SESSION),
)
