"""Commands about chats and what was said in them."""

from .chat import GROUP_TYPES, Chat, Command, Mistake, Target, is_id
from .console import Quit, escape

HISTORY = 20
HISTORY_MOST = 100


async def to(chat: Chat, who: str) -> None:
    """Choose where plain lines go."""
    if not who:
        raise Mistake("/to NAME or ID")
    who = who.strip('"')
    row = chat.one_of([*await chat.friends(), *await chat.groups()], who)
    if row is None and not is_id(who):
        raise Mistake(f"no friend and no group is called {who}")
    if row is None:
        row = (await chat.client.command("account", userId=who))["user"]
    if "kind" in row:
        chat.target = Target("", row["id"], GROUP_TYPES.get(row["kind"], "7"))
        chat.screen.line(f"* talking in {chat.lines.describe(row)}")
    else:
        chat.target = Target(row["id"])
        chat.screen.line(f"* talking to {chat.lines.describe(row)}")
    # What came was shown already.
    chat.read()


async def history(chat: Chat, rest: str) -> None:
    """Show the newest messages of the chat."""
    if chat.target is None:
        raise Mistake("whose? /to NAME")
    if rest and not (rest.isascii() and rest.isdigit() and 1 <= int(rest) <= HISTORY_MOST):
        raise Mistake(f"/history with a number from 1 to {HISTORY_MOST}")
    user_id, chat_id, _ = chat.target
    messages = await chat.client.history(chat_id, user_id=user_id, limit=int(rest or HISTORY))
    for message in messages:
        await chat.show(message, "  ")
    if messages:
        chat.read(messages[-1].msg_id)
    else:
        chat.screen.line("* no messages yet")


async def chats(chat: Chat, _: str) -> None:
    """List chats."""
    rows = []
    for row in await chat.client.chats():
        side = row.get("user") or row.get("group")
        name = chat.lines.remember(side) if side else escape(row["chatId"])
        rows.append(name + (f" ({row['unread']} new)" if row.get("unread") else ""))
    chat.listing(rows, "no chats yet")


async def search(chat: Chat, text: str) -> None:
    """Search messages."""
    if not text:
        raise Mistake("/search TEXT")
    messages = await chat.client.search_messages(text)
    for message in messages:
        await chat.show(message, "  ")
    if not messages:
        chat.screen.line("* nothing found")


async def recall(chat: Chat, msg_id: str) -> None:
    """Take back a message."""
    msg_id = msg_id or chat.last_sent
    if not msg_id:
        raise Mistake("nothing was sent from here yet; /recall MSG")
    await chat.client.recall(msg_id)
    chat.screen.line(f"* message {escape(msg_id)} was taken back")


async def whoami(chat: Chat, _: str) -> None:
    """Show who one is."""
    me = await chat.client.command("whoami")
    chat.screen.line(f"* {escape(me.get('username') or '(no name)')} ({escape(me['userId'])})")


async def show_help(chat: Chat, _: str) -> None:
    """Show what can be typed."""
    rows = [(f"/{row.usage}", row.text) for row in chat.commands.values()]
    rows.append(("//TEXT", "send a line that begins with /"))
    width = max(len(usage) for usage, _ in rows)
    for usage, text in rows:
        chat.screen.line(f"{usage:<{width}}  {text}")


async def leave(chat: Chat, _: str) -> None:
    """End the sitting."""
    raise Quit


COMMANDS = (
    Command("to NAME|ID", "talk to this friend or group; plain lines go there", to),
    Command("history [N]", "show the last N messages of this chat (20)", history),
    Command("chats", "list chats", chats),
    Command("search TEXT", "search messages", search),
    Command("recall [MSG]", "take back a message, the last one you sent", recall),
)
# What stands at the end of the help.
LAST = (
    Command("whoami", "show who you are", whoami),
    Command("help", "show this", show_help),
    Command("quit", "log out and leave", leave),
)
