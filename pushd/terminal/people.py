"""Commands about people: friends, and who asks for what."""

from .chat import Chat, Command, Mistake, first_word, is_id, is_phone, words
from .console import escape
from .lines import Row, is_called

LEADERS = ("owner", "admin")


async def friends(chat: Chat, _: str) -> None:
    """List friends."""
    chat.listing(map(chat.lines.describe, await chat.friends()), "no friends yet; /add NAME")


async def add(chat: Chat, rest: str) -> None:
    """Ask somebody to be friends."""
    who, text = first_word(rest)
    if not who:
        raise Mistake("/add NAME, ID or PHONE")
    user_id = who if is_id(who) else await _search(chat, who)
    user = (await chat.client.add_friend(user_id, text))["user"]
    outcome = "you are friends now" if user.get("isFriend") else "asked"
    chat.screen.line(f"* {chat.lines.remember(user)}: {outcome}")


async def _search(chat: Chat, who: str) -> str:
    """Give the id of the one user with this phone or name."""
    if is_phone(who):
        users = await chat.client.search(phone=who)
    else:
        users = await chat.client.search(who)
        exact = [user for user in users if is_called(user, who)]
        users = exact or users
    if not users:
        raise Mistake(f"nobody is called {who}")
    if len(users) > 1:
        chat.listing(map(chat.lines.describe, users), "")
        raise Mistake(f"{len(users)} people are called like {who}; add one by ID")
    return str(users[0]["id"])


async def requests(chat: Chat, _: str) -> None:
    """List who wants to be friends, and who wants to join groups that one leads."""
    rows = [_request(chat, row) for row in await _friend_requests(chat)]
    for group in await chat.groups():
        if group.get("role") in LEADERS and group.get("kind") == "group":
            name = chat.lines.describe(group)
            asking = await _join_requests(chat, group["id"])
            rows += [f"in {name}: {_request(chat, row)}" for row in asking]
    chat.listing(rows, "nobody asks")


def _request(chat: Chat, row: Row) -> str:
    return f"{chat.lines.describe(row['user'])}: {escape(row.get('description') or '')}"


async def _friend_requests(chat: Chat) -> list[Row]:
    return [row async for page in chat.client.pages("friend_requests", size=100) for row in page]


async def _join_requests(chat: Chat, group_id: str) -> list[Row]:
    pages = chat.client.pages("join_requests", groupId=group_id, size=100)
    return [row async for page in pages for row in page]


async def accept(chat: Chat, rest: str) -> None:
    """Become friends with somebody who asked, or let them into a group."""
    group_id, user_id = await _who_asks(chat, rest, "accept")
    if group_id:
        # The whole group is told, and so is this terminal.
        await chat.client.command("accept_join", groupId=group_id, userId=user_id)
        return
    user = await chat.client.accept_friend(user_id)
    chat.screen.line(f"* {chat.lines.remember(user)} is your friend now")


async def reject(chat: Chat, rest: str) -> None:
    """Refuse somebody who asked; they are not told."""
    group_id, user_id = await _who_asks(chat, rest, "reject")
    if group_id:
        await chat.client.command("reject_join", groupId=group_id, userId=user_id)
    else:
        await chat.client.command("reject_friend", userId=user_id)
    chat.screen.line(f"* {await chat.lines.user(user_id)} was refused, and is not told")


async def _who_asks(chat: Chat, rest: str, command: str) -> tuple[str, str]:
    """Read `[GROUP] WHO`: the group's id or nothing, and the id of who asks."""
    match words(rest):
        case [who]:
            group_id = ""
        case [name, who]:
            group_id = (await chat.group(name))["id"]
        case _:
            raise Mistake(f"/{command} ID, or /{command} GROUP ID")
    if is_id(who):
        return group_id, who
    asking = await (_join_requests(chat, group_id) if group_id else _friend_requests(chat))
    user = chat.one_of([row["user"] for row in asking], who)
    if user is None:
        raise Mistake(f"nobody who asks is called {who}")
    return group_id, str(user["id"])


async def unfriend(chat: Chat, who: str) -> None:
    """End a friendship."""
    await _about(chat, "unfriend", "delete_friend", who, "is no friend any more")


async def block(chat: Chat, who: str) -> None:
    """Let somebody write no more."""
    await _about(chat, "block", "block", who, "cannot write to you any more")


async def unblock(chat: Chat, who: str) -> None:
    """Let somebody write again."""
    blocked = [row async for page in chat.client.pages("blocked", size=100) for row in page]
    user = chat.one_of(blocked, who.strip('"'))
    await _about(chat, "unblock", "unblock", user["id"] if user else who, "may write to you again")


async def _about(chat: Chat, name: str, command: str, who: str, outcome: str) -> None:
    if not who:
        raise chat.usage(name)
    user = await chat.client.command(command, userId=await chat.user_id(who.strip('"')))
    chat.screen.line(f"* {chat.lines.remember(user)} {outcome}")


async def alias(chat: Chat, rest: str) -> None:
    """Call a friend by another name."""
    who, name = first_word(rest)
    if not who:
        raise chat.usage("alias")
    user_id = await chat.user_id(who)
    user = await chat.client.command("set_alias", userId=user_id, alias=name.strip('"'))
    chat.screen.line(f"* {escape(user_id)} is {chat.lines.remember(user)} for you")


COMMANDS = (
    Command("friends", "list friends", friends),
    Command("add NAME|ID|PHONE [TEXT]", 'ask to be friends (quote "a name" with blanks)', add),
    Command("requests", "list who asks you, or to join your groups", requests),
    Command("accept [GROUP] ID|NAME", "become friends, or let somebody into a group", accept),
    Command("reject [GROUP] ID|NAME", "refuse a friend, or who wants to join", reject),
    Command("alias NAME|ID [ALIAS]", "call a friend by another name, or no more", alias),
    Command("unfriend NAME|ID", "end a friendship", unfriend),
    Command("block NAME|ID", "let somebody write to you no more", block),
    Command("unblock NAME|ID", "let them write again", unblock),
)
