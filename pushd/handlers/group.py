"""Groups of three kinds: `group` (asked for), `tag` (open), `link` (by its code)."""

from typing import Annotated, Literal

from msgspec import Meta

from ..commands import Command, Context, Needs, Page, Paged, Request, listed
from ..errors import BadField
from ..model import GroupOut, Id, Maybe, Natural
from ..names import check_label, fold
from ..session import Session
from .account import user_id

Name = Annotated[str, Meta(max_length=50)]
Text = Annotated[str, Meta(max_length=500)]
MOST_USERS = 5000  # ids in one request
LONGEST_MUTE = 365 * 86400  # seconds


class SearchGroup(Paged):
    """The fields of `search_group`."""

    name: Annotated[str, Meta(max_length=300)] | None = None


class CreateGroup(Request):
    """The fields of `create_group`."""

    name: Name | None = None
    kind: Literal["group", "tag", "link", ""] | None = None
    user_ids: list[Id] | Maybe = None
    desc: Text | None = None
    avatar: str | None = None


class JoinGroup(Request):
    """The fields of `join_group`."""

    group_id: Id | None = None
    code: Id | None = None
    description: Annotated[str, Meta(max_length=200)] | None = None


class OneGroup(Request):
    """The fields of commands about one group."""

    group_id: Id | None = None


class GroupPage(Paged):
    """The fields of lists of one group."""

    group_id: Id | None = None


class GroupUser(Request):
    """The fields of commands about one user of a group."""

    group_id: Id | None = None
    user_id: Id | None = None


class GroupUsers(Request):
    """The fields of commands about users of a group."""

    group_id: Id | None = None
    user_ids: list[Id] | Maybe = None


class SetRole(GroupUser):
    """The fields of `set_role`."""

    role: Literal["owner", "admin", "member", ""] | None = None


class UpdateGroup(Request):
    """The fields of `update_group`; what is absent stays, and `""` clears `desc` and `notice`."""

    group_id: Id | None = None
    name: Name | None = None
    desc: Text | None = None
    avatar: str | None = None
    notice: Text | None = None
    mute_all: bool | Maybe = None


class Mute(GroupUser):
    """The fields of `mute`."""

    seconds: Natural | Maybe = None


async def search_group(ctx: Context, session: Session, request: SearchGroup) -> Page:
    """Find groups and tags by a part of their name."""
    viewer = session.who.account
    window = ctx.window(request.page, request.size)
    if not request.name or not fold(request.name).strip():
        # Every name contains nothing, but nobody may list all groups.
        return Page([])
    ctx.spend(session, "searches")
    after = window.key[0] if window.key else 0
    groups = await ctx.store.groups.search(
        viewer, request.name, after, window.skip, window.size + 1
    )
    return listed(groups, window, lambda group: (int(group.id[1:]),))


async def create_group(ctx: Context, session: Session, request: CreateGroup) -> GroupOut:
    """Make a group with some of the caller's friends."""
    actor = session.who
    name = _name(request.name)
    if not request.kind:
        raise BadField("kind", "kind is group, tag or link")
    users = _users(request.user_ids or [], least=0)
    profile = {"desc": request.desc or ""}
    if request.avatar:
        profile["avatar"] = request.avatar
    key = await ctx.store.groups.create(actor, name, request.kind, users, profile)
    return await ctx.store.groups.seen(actor.account, key)


async def join_group(ctx: Context, session: Session, request: JoinGroup) -> GroupOut:
    """Join a tag or a link, or ask to be let into a group."""
    actor = session.who
    if not request.group_id and not request.code:
        raise BadField("groupId", "say a groupId or a code")
    description = request.description or ""
    if not request.code:
        ctx.spend(session, "friend_requests")
    key = await ctx.store.groups.join(
        actor, request.group_id or "", request.code or "", description
    )
    return await ctx.store.groups.seen(actor.account, key)


async def accept_join(ctx: Context, session: Session, request: GroupUser) -> GroupOut:
    """Let somebody in who asked."""
    key, user = _key(request.group_id), user_id(request.user_id)
    await ctx.store.groups.accept(session.who, key, user)
    return await ctx.store.groups.seen(session.account, key)


async def reject_join(ctx: Context, session: Session, request: GroupUser) -> GroupOut:
    """Refuse somebody who asked; they are not told."""
    key, user = _key(request.group_id), user_id(request.user_id)
    await ctx.store.groups.reject(session.who, key, user)
    return await ctx.store.groups.seen(session.account, key)


async def join_requests(ctx: Context, session: Session, request: GroupPage) -> Page:
    """List who asked to join, for owner and admins."""
    window = ctx.window(request.page, request.size)
    after = window.key[0] if window.key else 0
    found = await ctx.store.groups.requests(
        session.who.account, _key(request.group_id), after, window.skip, window.size + 1
    )
    return listed(found, window, lambda entry: (int(entry.user.id),))


async def invite(ctx: Context, session: Session, request: GroupUsers) -> GroupOut:
    """Bring friends into a group."""
    key, users = _key(request.group_id), _users(request.user_ids or [])
    await ctx.store.groups.invite(session.who, key, users)
    return await ctx.store.groups.seen(session.account, key)


async def kick(ctx: Context, session: Session, request: GroupUsers) -> GroupOut:
    """Put people out of a group."""
    key, users = _key(request.group_id), _users(request.user_ids or [])
    await ctx.store.groups.kick(session.who, key, users)
    return await ctx.store.groups.seen(session.account, key)


async def leave_group(ctx: Context, session: Session, request: OneGroup) -> GroupOut:
    """Leave a group."""
    key = _key(request.group_id)
    await ctx.store.groups.leave(session.who, key)
    return await ctx.store.groups.seen(session.account, key)


async def dissolve_group(ctx: Context, session: Session, request: OneGroup) -> GroupOut:
    """End a group of one's own."""
    key = _key(request.group_id)
    await ctx.store.groups.dissolve(session.who, key)
    return await ctx.store.groups.seen(session.account, key)


async def set_role(ctx: Context, session: Session, request: SetRole) -> GroupOut:
    """Make somebody owner, admin or member."""
    key, user = _key(request.group_id), user_id(request.user_id)
    if not request.role:
        raise BadField("role", "role is owner, admin or member")
    await ctx.store.groups.set_role(session.who, key, user, request.role)
    return await ctx.store.groups.seen(session.account, key)


async def update_group(ctx: Context, session: Session, request: UpdateGroup) -> GroupOut:
    """Change what is given of a group."""
    actor, key = session.who, _key(request.group_id)
    changes: dict[str, str | bool] = {}
    if request.name:
        changes["name"] = _name(request.name)
    if request.desc is not None:
        changes["desc"] = request.desc
    if request.notice is not None:
        changes["notice"] = request.notice
    if request.avatar:
        changes["avatar"] = request.avatar
    if isinstance(request.mute_all, bool):
        changes["mute_all"] = request.mute_all
    await ctx.store.groups.update(actor, key, changes)
    return await ctx.store.groups.seen(actor.account, key)


async def mute(ctx: Context, session: Session, request: Mute) -> GroupOut:
    """Let somebody not write for a time."""
    key, user = _key(request.group_id), user_id(request.user_id)
    if not isinstance(request.seconds, int) or request.seconds > LONGEST_MUTE:
        raise BadField("seconds", f"seconds is 0 to {LONGEST_MUTE}")
    await ctx.store.groups.mute(session.who, key, user, request.seconds)
    return await ctx.store.groups.seen(session.account, key)


async def group_members(ctx: Context, session: Session, request: GroupPage) -> Page:
    """List who is in a group of the caller's."""
    window = ctx.window(request.page, request.size)
    after = window.key[0] if window.key else 0
    found = await ctx.store.groups.members(
        session.who.account, _key(request.group_id), after, window.skip, window.size + 1
    )
    return listed(found, window, lambda entry: (int(entry.user.id),))


async def my_groups(ctx: Context, session: Session, request: Paged) -> Page:
    """List the groups that the caller is in."""
    window = ctx.window(request.page, request.size)
    after = window.key[0] if window.key else 0
    groups = await ctx.store.groups.mine(session.who.account, after, window.skip, window.size + 1)
    return listed(groups, window, lambda group: (int(group.id[1:]),))


def _key(text: str | None) -> str:
    if not text:
        raise BadField("groupId", "groupId is empty")
    return text


def _name(text: str | None) -> str:
    name = check_label(text or "", "name")
    if not name:
        raise BadField("name", "name is empty")
    return name


def _users(texts: list[Id], least: int = 1) -> list[int]:
    if not least <= len(texts) <= MOST_USERS:
        raise BadField("userIds", f"userIds holds {least} to {MOST_USERS} ids")
    return [user_id(text, f"userIds[{index}]") for index, text in enumerate(texts)]


COMMANDS = (
    Command(
        "search_group",
        search_group,
        SearchGroup,
        Needs.SESSION,
        listing=True,
        zero_when_empty=True,
    ),
    Command("create_group", create_group, CreateGroup, Needs.SESSION, budget="groups"),
    Command("join_group", join_group, JoinGroup, Needs.SESSION),
    Command("accept_join", accept_join, GroupUser, Needs.SESSION),
    Command("reject_join", reject_join, GroupUser, Needs.SESSION),
    Command("join_requests", join_requests, GroupPage, Needs.SESSION, listing=True),
    Command("invite", invite, GroupUsers, Needs.SESSION),
    Command("kick", kick, GroupUsers, Needs.SESSION),
    Command("leave_group", leave_group, OneGroup, Needs.SESSION),
    Command("dissolve_group", dissolve_group, OneGroup, Needs.SESSION),
    Command("set_role", set_role, SetRole, Needs.SESSION),
    Command("update_group", update_group, UpdateGroup, Needs.SESSION),
    Command("mute", mute, Mute, Needs.SESSION),
    Command("group_members", group_members, GroupPage, Needs.SESSION, listing=True),
    Command("my_groups", my_groups, Paged, Needs.SESSION, listing=True),
)
