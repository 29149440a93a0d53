"""Commands about groups.

What changes a group is told to all its members by the server, and so to this terminal: such
commands show nothing themselves.
"""

import re

from .chat import Chat, Command, Mistake, first_word, words
from .console import escape
from .lines import Row

KINDS = ("group", "tag", "link")
ROLES = ("owner", "admin", "member")
_GROUP_ID = re.compile(r"g[0-9]+")


async def make(chat: Chat, rest: str) -> None:
    """Make a group."""
    *name, kind = words(rest) or [""]
    if not name or kind not in KINDS:
        name, kind = [*name, kind], "group"
    if name == [""]:
        raise chat.usage("group")
    group = await chat.client.command("create_group", name=" ".join(name), kind=kind)
    chat.screen.line(f"* you made the {kind} {_describe(chat, group)}")


async def mine(chat: Chat, _: str) -> None:
    """List the groups that one is in."""
    rows = [_details(chat, group) for group in await chat.groups()]
    chat.listing(rows, "no groups yet; /group NAME")


async def find(chat: Chat, name: str) -> None:
    """Search groups that one may join."""
    if not name:
        raise chat.usage("find")
    groups = await chat.client.command("search_group", name=name.strip('"'), page=0)
    chat.listing([_details(chat, group) for group in groups], "nothing found")


async def join(chat: Chat, rest: str) -> None:
    """Join a group, or ask to be let in."""
    which, text = first_word(rest)
    if not which:
        raise chat.usage("join")
    key = "groupId" if _GROUP_ID.fullmatch(which) else "code"
    fields = {key: which, "description": text}
    group = await chat.client.command("join_group", **fields)
    name = _describe(chat, group)
    chat.screen.line(f"* you are in {name}" if group.get("role") else f"* asked to join {name}")


async def invite(chat: Chat, rest: str) -> None:
    """Bring friends into a group."""
    name, *who = words(rest) or [""]
    if not who:
        raise chat.usage("invite")
    group = await chat.group(name)
    ids = [await chat.user_id(each) for each in who]
    await chat.client.command("invite", groupId=group["id"], userIds=ids)


async def members(chat: Chat, rest: str) -> None:
    """List who is in a group."""
    rows = []
    for row in await _members(chat, await _group(chat, rest)):
        muted = f", muted until {escape(row['mutedUntil'])}" if row.get("mutedUntil") else ""
        rows.append(f"{chat.lines.describe(row['user'])} {escape(row['role'])}{muted}")
    chat.listing(rows, "nobody is in")


async def leave(chat: Chat, rest: str) -> None:
    """Leave a group."""
    group = await _group(chat, rest)
    await chat.client.command("leave_group", groupId=group["id"])
    _gone(chat, group)


async def dissolve(chat: Chat, rest: str) -> None:
    """End a group of one's own; its name must be said."""
    if not rest:
        raise chat.usage("dissolve")
    group = await _group(chat, rest)
    await chat.client.command("dissolve_group", groupId=group["id"])
    _gone(chat, group)


async def kick(chat: Chat, rest: str) -> None:
    """Put people out of a group."""
    name, *who = words(rest) or [""]
    if not who:
        raise chat.usage("kick")
    group = await chat.group(name)
    ids = await _member_ids(chat, group, who)
    await chat.client.command("kick", groupId=group["id"], userIds=ids)


async def role(chat: Chat, rest: str) -> None:
    """Make a member owner, admin or member again."""
    match words(rest):
        case [name, who, what] if what in ROLES:
            group = await chat.group(name)
        case _:
            raise chat.usage("role")
    [user_id] = await _member_ids(chat, group, [who])
    await chat.client.command("set_role", groupId=group["id"], userId=user_id, role=what)


async def mute(chat: Chat, rest: str) -> None:
    """Let a member not write for a time."""
    match words(rest):
        case [name, who, seconds] if seconds.isascii() and seconds.isdigit():
            group = await chat.group(name)
        case _:
            raise chat.usage("mute")
    [user_id] = await _member_ids(chat, group, [who])
    fields = {"userId": user_id, "seconds": int(seconds)}
    await chat.client.command("mute", groupId=group["id"], **fields)


async def announce(chat: Chat, text: str) -> None:
    """Say something to a group that is more than talk."""
    if not text:
        raise chat.usage("announce")
    if chat.target is None or not chat.target.chat_id:
        raise Mistake("in which group? /to NAME")
    chat_id = chat.target.chat_id
    chat.last_sent = await chat.client.send("", text, chat_id=chat_id, type="4")


async def rename(chat: Chat, rest: str) -> None:
    """Call a group by another name."""
    name, *new = words(rest) or [""]
    if not new:
        raise chat.usage("rename")
    group = await chat.group(name)
    await chat.client.command("update_group", groupId=group["id"], name=" ".join(new))


async def notice(chat: Chat, rest: str) -> None:
    """Set the notice of a group, or clear it."""
    name, text = first_word(rest)
    if not name:
        raise chat.usage("notice")
    group = await chat.group(name)
    await chat.client.command("update_group", groupId=group["id"], notice=text)


async def _group(chat: Chat, rest: str) -> Row:
    """Give the group that was said, or the one that one talks in."""
    if rest:
        return await chat.group(rest.strip('"'))
    if chat.target is None or not chat.target.chat_id:
        raise Mistake("which group? say its NAME or ID")
    return await chat.group(chat.target.chat_id)


async def _members(chat: Chat, group: Row) -> list[Row]:
    pages = chat.client.pages("group_members", groupId=group["id"], size=100)
    return [row async for page in pages for row in page]


async def _member_ids(chat: Chat, group: Row, who: list[str]) -> list[str]:
    users = [row["user"] for row in await _members(chat, group)]
    found = [chat.one_of(users, each) for each in who]
    if None in found:
        raise Mistake(f"nobody in this group is called {who[found.index(None)]}")
    return [str(user["id"]) for user in found if user is not None]


def _gone(chat: Chat, group: Row) -> None:
    """Stop talking where one is no longer."""
    if chat.target is not None and chat.target.chat_id == group["id"]:
        chat.target = None


def _describe(chat: Chat, group: Row) -> str:
    code = f", code {escape(group['code'])}" if group.get("code") else ""
    return f"{chat.lines.describe(group)}{code}"


def _details(chat: Chat, group: Row) -> str:
    count = group.get("members", 0)
    what = f"{escape(str(group.get('kind')))} of {count}"
    mine = f", {escape(group['role'])}" if group.get("role") else ""
    notice = f": {escape(group['notice'])}" if group.get("notice") else ""
    return f"{_describe(chat, group)}, {what}{mine}{notice}"


COMMANDS = (
    Command("groups", "list your groups", mine),
    Command("group NAME [KIND]", "make a group, a tag (open to all) or a link (by code)", make),
    Command("find NAME", "search groups and tags", find),
    Command("join ID|CODE [TEXT]", "join a tag or link, or ask to join a group", join),
    Command("invite GROUP USER...", "bring friends into a group", invite),
    Command("members [GROUP]", "list who is in a group", members),
    Command("leave [GROUP]", "leave a group", leave),
    Command("kick GROUP USER...", "put people out of a group", kick),
    Command("role GROUP USER ROLE", "make somebody owner, admin or member", role),
    Command("mute GROUP USER SECONDS", "let somebody not write for a time, 0 ends it", mute),
    Command("announce TEXT", "say something important to the group you talk in", announce),
    Command("rename GROUP NAME", "call a group by another name", rename),
    Command("notice GROUP [TEXT]", "set the notice of a group, or clear it", notice),
    Command("dissolve GROUP", "end a group of yours", dissolve),
)
