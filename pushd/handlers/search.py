"""Finding people and messages: folded, literal, and only what the caller may find."""

from typing import Annotated

from msgspec import Meta

from ..commands import Command, Context, Needs, Page, Paged, listed
from ..errors import BadField, Refusal
from ..model import MAX_INT, Id, Integer
from ..names import looks_like_phone, normal_phone
from ..protocol import raw_list
from ..session import Session
from ..store.messages import key_for

# The longest text that is searched for; a longer one finds nothing that a shorter one does not.
SearchText = Annotated[str, Meta(max_length=300)]


class Search(Paged):
    """The fields of `search`; one of the three says whom to look for."""

    username: SearchText | None = None
    phone: str | Integer | None = None
    field: SearchText | None = None


class SearchMessages(Paged):
    """The fields of `search_messages`."""

    text: SearchText | None = None
    chat_id: Id | None = None


async def search(ctx: Context, session: Session, request: Search) -> Page:
    """Find users by a part of their name, or one by their whole phone."""
    viewer = session.who.account
    window = ctx.window(request.page, request.size)
    phone, name = request.phone, request.username
    if not phone and not name and request.field:
        if looks_like_phone(request.field):
            phone = request.field
        else:
            name = request.field
    if phone:
        ctx.spend(session, "phone_searches")
        found = await ctx.store.accounts.search_phone(viewer, _phone(phone))
        return Page(found if not window.skip and not window.key else [])
    if not name:
        # Every name contains nothing, but nobody may list all users.
        return Page([])
    ctx.spend(session, "searches")
    after = window.key[0] if window.key else 0
    users = await ctx.store.accounts.search_names(viewer, name, after, window.skip, window.size + 1)
    return listed(users, window, lambda user: (int(user.id),))


async def search_messages(ctx: Context, session: Session, request: SearchMessages) -> Page:
    """Find messages in the caller's chats that hold a text, newest first."""
    viewer = session.who.account
    window = ctx.window(request.page, request.size)
    if not request.text:
        raise BadField("text", "text is empty")
    ctx.spend(session, "searches")
    key = key_for(viewer, request.chat_id, 0) if request.chat_id else ""
    before = window.key[0] if window.key else MAX_INT
    items, more = await ctx.store.messages.search(
        viewer, request.text, key, before, window.skip, window.size
    )
    return Page(raw_list(items), f"after:{more}" if more else "")


def _phone(value: str | int) -> str:
    """Read a phone to search for; one that no account can have finds nobody."""
    try:
        return normal_phone(value)
    except Refusal:
        return ""


COMMANDS = (
    Command("search", search, Search, Needs.SESSION, listing=True, zero_when_empty=True),
    Command("search_messages", search_messages, SearchMessages, Needs.SESSION, listing=True),
)
