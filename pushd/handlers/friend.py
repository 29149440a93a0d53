"""Friends, requests, blocks and presence."""

from typing import Annotated

from msgspec import Meta

from ..commands import Command, Context, Needs, Page, Paged, Request, listed
from ..errors import BadField, Refusal
from ..model import MAX_INT, AccountOut, Maybe, PresenceOut, UserOut
from ..names import check_label
from ..session import Session
from ..status import Status
from .account import user_id

Description = Annotated[str, Meta(max_length=200)]
Alias = Annotated[str, Meta(max_length=50)]


class Friends(Paged):
    """The fields of `friends`; `field` filters by name or alias."""

    field: Annotated[str, Meta(max_length=300)] | None = None


class AddFriend(Request):
    """The fields of `add_friend`."""

    user_id: str | None = None
    description: Description | None = None


class User(Request):
    """The fields of commands about one user."""

    user_id: str | None = None


class SetAlias(Request):
    """The fields of `set_alias`; an empty alias clears it."""

    user_id: str | None = None
    alias: Alias | None = None


class Presence(Request):
    """The fields of `presence`."""

    user_ids: list[str] | Maybe = None


async def friends(ctx: Context, session: Session, request: Friends) -> Page:
    """List the caller's friends by rising id."""
    window = ctx.window(request.page, request.size)
    after = window.key[0] if window.key else 0
    users = await ctx.store.friends.of(
        session.who.account, request.field or "", after, window.skip, window.size + 1
    )
    return listed(users, window, lambda user: (int(user.id),))


async def add_friend(ctx: Context, session: Session, request: AddFriend) -> AccountOut:
    """Ask somebody to be friends, or become friends if they had asked already."""
    actor = session.who
    user = user_id(request.user_id)
    await ctx.store.friends.ask(actor, user, request.description or "")
    return await ctx.store.accounts.as_seen(actor.account, user)


async def accept_friend(ctx: Context, session: Session, request: User) -> UserOut:
    """Accept the request of somebody, who is told."""
    user = user_id(request.user_id)
    await ctx.store.friends.accept(session.who, user)
    return await ctx.store.friends.user(session.account, user)


async def reject_friend(ctx: Context, session: Session, request: User) -> UserOut:
    """Refuse the request of somebody, who is not told."""
    user = user_id(request.user_id)
    await ctx.store.friends.reject(session.who, user)
    return await ctx.store.friends.user(session.account, user)


async def delete_friend(ctx: Context, session: Session, request: User) -> UserOut:
    """End a friendship on both sides."""
    user = user_id(request.user_id)
    await ctx.store.friends.delete(session.who, user)
    return await ctx.store.friends.user(session.account, user)


async def set_alias(ctx: Context, session: Session, request: SetAlias) -> UserOut:
    """Give a friend a name of one's own."""
    user = user_id(request.user_id)
    if request.alias is None:
        raise BadField("alias", 'say an alias; "" clears it')
    await ctx.store.friends.set_alias(session.who, user, check_label(request.alias, "alias"))
    return await ctx.store.friends.user(session.account, user)


async def friend_requests(ctx: Context, session: Session, request: Paged) -> Page:
    """List the requests that wait for the caller, newest first."""
    window = ctx.window(request.page, request.size, parts=2)
    before = (window.key[0], window.key[1]) if window.key else (MAX_INT, MAX_INT)
    found = await ctx.store.friends.requests(
        session.who.account, before, window.skip, window.size + 1
    )
    page = listed(found, window, lambda entry: (entry[1], entry[2]))
    return Page([entry[0] for entry in page.items], page.next)  # type: ignore[index]


async def block(ctx: Context, session: Session, request: User) -> UserOut:
    """Refuse everything that somebody sends to the caller from now on."""
    user = user_id(request.user_id)
    await ctx.store.friends.block(session.who, user)
    return await ctx.store.friends.user(session.account, user)


async def unblock(ctx: Context, session: Session, request: User) -> UserOut:
    """Let somebody write to the caller again."""
    user = user_id(request.user_id)
    await ctx.store.friends.unblock(session.who, user)
    return await ctx.store.friends.user(session.account, user)


async def blocked(ctx: Context, session: Session, request: Paged) -> Page:
    """List whom the caller blocks, by rising id."""
    window = ctx.window(request.page, request.size)
    after = window.key[0] if window.key else 0
    users = await ctx.store.friends.blocked(
        session.who.account, after, window.skip, window.size + 1
    )
    return listed(users, window, lambda user: (int(user.id),))


async def presence(ctx: Context, session: Session, request: Presence) -> list[PresenceOut]:
    """Tell whether friends are online; raises Refusal 4004 for others, 6004 for unknown ones."""
    ids = request.user_ids or []
    most = ctx.config.limits.presence
    if not 1 <= len(ids) <= most:
        raise BadField("userIds", f"userIds holds 1 to {most} ids")
    users = [user_id(text, f"userIds[{index}]") for index, text in enumerate(ids)]
    # Whoever is offline by now has been seen: that is noted with the next commit.
    await ctx.store.writer.barrier()
    known = await ctx.store.friends.presence(session.who.account, users)
    listing: list[PresenceOut] = []
    for index, user in enumerate(users):
        if user not in known:
            field = f"userIds[{index}]"
            if await ctx.store.accounts.by_id(user) is None:
                raise Refusal(Status.NULL_USER, field=field)
            raise Refusal(Status.NOT_ALLOWED, "this user is not your friend", field=field)
        shown, seen = known[user]
        online = shown and ctx.hub.online(user)
        last_seen = ctx.dates.text(seen) if shown and seen and not online else ""
        listing.append(PresenceOut(str(user), online, last_seen))
    return listing


COMMANDS = (
    Command("friends", friends, Friends, Needs.SESSION, listing=True),
    Command("add_friend", add_friend, AddFriend, Needs.SESSION, budget="friend_requests"),
    Command("accept_friend", accept_friend, User, Needs.SESSION),
    Command("reject_friend", reject_friend, User, Needs.SESSION),
    Command("delete_friend", delete_friend, User, Needs.SESSION),
    Command("friend_requests", friend_requests, Paged, Needs.SESSION, listing=True),
    Command("set_alias", set_alias, SetAlias, Needs.SESSION),
    Command("block", block, User, Needs.SESSION, budget="profiles"),
    Command("unblock", unblock, User, Needs.SESSION, budget="profiles"),
    Command("blocked", blocked, Paged, Needs.SESSION, listing=True),
    Command("presence", presence, Presence, Needs.SESSION, listing=True),
)
