"""Reading back what was said, and changing one's mind about it."""

from ..commands import Command, Context, Needs, Page, Paged, Request
from ..draft import user_number
from ..errors import BadField, Refusal
from ..model import MAX_INT, AckIn, Empty, Id, Maybe, Natural, StatusOut
from ..protocol import raw_list
from ..session import Session
from ..status import Status
from ..store.messages import key_for, peer_of, shown_key
from .account import user_id


class History(Request):
    """The fields of `history`: a chat or a user, and where to read from (exclusive)."""

    chat_id: Id | None = None
    user_id: Id | None = None
    before: Id | None = None
    after: Id | None = None
    limit: Natural | Maybe = None


class OneMessage(Request):
    """The fields of commands about one message."""

    msg_id: Id | None = None


class Typing(Request):
    """The fields of `typing`."""

    chat_id: Id | None = None
    user_id: Id | None = None


async def chats(ctx: Context, session: Session, request: Paged) -> Page:
    """List the caller's chats, newest first, with what is unread."""
    window = ctx.window(request.page, request.size)
    before = window.key[0] if window.key else MAX_INT
    items, more = await ctx.store.messages.chats(
        session.who.account, before, window.skip, window.size
    )
    return Page(items, f"after:{more}" if more else "")


async def history(ctx: Context, session: Session, request: History) -> Page:
    """Read a chat, oldest first: the newest messages, or those before or after one."""
    key = await _key(ctx, session, request.chat_id, request.user_id)
    if request.before and request.after:
        raise BadField("after", "say before or after, not both")
    most = ctx.config.limits.history_max
    limit = ctx.config.limits.page if request.limit in (None, "") else int(request.limit or 0)
    if not 1 <= limit <= most:
        raise BadField("limit", f"limit is 1 to {most}")
    before = _number(request.before, "before") if request.before else MAX_INT
    after = _number(request.after, "after") if request.after else -1
    if request.after:
        before = -1
    items, more = await ctx.store.messages.history(session.who.account, key, before, after, limit)
    return Page(raw_list(items), more)


async def recall(ctx: Context, session: Session, request: OneMessage) -> Empty:
    """Take one's own message back while it is young; a stub stays in its place."""
    since = ctx.clock.wall() - ctx.config.limits.recall * 1000
    await ctx.store.messages.recall(session.who, _message(request), since)
    return Empty()


async def status(ctx: Context, session: Session, request: OneMessage) -> StatusOut:
    """Tell how far one's own message has come."""
    return await ctx.store.messages.status(session.who.account, _message(request))


async def typing(ctx: Context, session: Session, request: Typing) -> Empty:
    """Tell the other one of a pair that one is typing, if they accept to be told."""
    account = session.who.account
    key = await _key(ctx, session, request.chat_id, request.user_id)
    if key.startswith("g"):
        for member in await ctx.store.groups.member_ids(account, key):
            if member != account:
                ctx.hub.typing(account, member, key)
        return Empty()
    peer = peer_of(key, account)
    if peer and not await ctx.store.friends.may_signal(account, peer):
        raise Refusal(Status.NOT_ALLOWED, "you are not friends")
    if peer:
        ctx.hub.typing(account, peer, shown_key(key))
    return Empty()


async def mark_read(ctx: Context, session: Session, ack: AckIn) -> None:
    """Note that a conversation was read; raises Refusal for an ack object that is not whole."""
    actor = session.who
    if (ack.content or ack.info) != "ok":
        raise BadField("message.content", 'content is "ok"')
    upto = 0
    if ack.msg_id:
        upto = user_number(ack.msg_id)
        if not 0 < upto <= MAX_INT:
            raise BadField("message.msgId", "msgId is a decimal number")
    await ctx.store.messages.mark_read(actor, _ack_key(actor.account, ack), upto)


def _ack_key(account: int, ack: AckIn) -> str:
    """Give the key of the chat that an ack object means: the other one of the pair, or chatId."""
    own = str(account)
    named = [name for name in (ack.from_id, ack.to_id) if name]
    others = [name for name in named if name != own]
    if named and len(others) < len(named) and others:
        return key_for(account, "", user_number(others[0]))
    if ack.chat_id:
        return key_for(account, ack.chat_id, 0, "message.chatId")
    if len(named) == 2:
        raise Refusal(Status.NOT_ALLOWED, "one of the two is you", field="message.fromId")
    if len(others) == 1:
        return key_for(account, "", user_number(others[0]))
    raise BadField("message.chatId", "say the chat, or the other one of the pair")


async def _key(ctx: Context, session: Session, chat: str | None, user: str | None) -> str:
    account = session.who.account
    if chat:
        return key_for(account, chat, 0)
    peer = user_id(user)
    if await ctx.store.accounts.by_id(peer) is None:
        raise Refusal(Status.NULL_USER, field="userId")
    return key_for(account, "", peer)


def _message(request: OneMessage) -> int:
    if not request.msg_id:
        raise BadField("msgId", "msgId is empty")
    number = user_number(request.msg_id)
    if not 0 < number <= MAX_INT:
        raise Refusal(Status.NOT_FOUND, "no such message", field="msgId")
    return number


def _number(text: str, field: str) -> int:
    """Read a msgId that only says a place, 0 included."""
    if text.isascii() and text.isdigit() and len(text) <= 16:
        return min(int(text), MAX_INT)
    raise BadField(field, f"{field} is a msgId")


COMMANDS = (
    Command("chats", chats, Paged, Needs.SESSION, listing=True),
    Command("history", history, History, Needs.SESSION, listing=True),
    Command("recall", recall, OneMessage, Needs.SESSION),
    Command("status", status, OneMessage, Needs.SESSION),
    Command("typing", typing, Typing, Needs.SESSION, budget="typing"),
)
