"""People's rights over what is stored about them, and reports to the operator."""

from functools import partial
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from ..commands import Command, Context, Needs, Request
from ..draft import user_number
from ..encoding import encode
from ..errors import BadField, Refusal
from ..model import MAX_INT, Empty, Id
from ..session import Session
from ..status import Status
from ..store.messages import shown_key
from .account import user_id
from .file import SavedOut, keep
from .login import check_known_password, check_own_password

# How many rows are read for an archive at a time.
EXPORT_PAGE = 1000


class DeleteAccount(Request):
    """The fields of `delete_account`."""

    password: str | None = None


class Report(Request):
    """The fields of `report`: a user or a message, and why."""

    user_id: Id | None = None
    msg_id: Id | None = None
    reason: Annotated[str, Meta(max_length=500)] | None = None


async def delete_account(ctx: Context, session: Session, request: DeleteAccount) -> Empty:
    """Remove the caller's account; the connection is as before the login then."""
    actor = session.who
    password = check_known_password(ctx, request.password)
    await check_own_password(ctx, session, password, "password")
    await ctx.store.lifecycle.delete(actor)
    ctx.hub.revoke(actor.account, session)
    ctx.hub.logout(session)
    return Empty()


async def export_account(ctx: Context, session: Session, request: Request) -> SavedOut:
    """Put everything that is stored about the caller into an archive, kept for a day."""
    actor = session.who
    hours = ctx.config.media.export_hours
    async with ctx.turns.of(("export", actor.account)):
        archive = await ctx.media.new_archive()
        try:
            await _fill(ctx, archive, actor.account)
            fresh = await ctx.media.seal(archive)
            add = partial(ctx.store.files.add_export, actor, fresh.file, hours)
            await keep(ctx, fresh, add)
        finally:
            await ctx.media.drop_archive(archive)
    return SavedOut(fresh.file.path)


async def _fill(ctx: Context, archive: Path, account: int) -> None:
    """Write account, friends, requests, blocks, groups, devices, logins, messages and files."""
    store, big = ctx.store, EXPORT_PAGE
    devices = await store.devices.of(account)
    parts: dict[str, object] = {
        "account.json": await store.accounts.as_seen(account, account),
        "friends.json": await store.friends.of(account, "", 0, 0, -1),
        "blocked.json": await store.friends.blocked(account, 0, 0, -1),
        "friend_requests.json": [
            entry[0] for entry in await store.friends.requests(account, (MAX_INT, MAX_INT), 0, -1)
        ],
        "groups.json": await store.groups.mine(account, 0, 0, -1),
        "devices.json": [
            {"name": name, "lastSeen": ctx.dates.text(seen)} for _, name, seen in devices
        ],
        "logins.json": [
            {"date": ctx.dates.text(time), "address": address, "outcome": outcome, "count": count}
            for time, address, _, outcome, count in await store.audit.logins(account)
        ],
    }
    for name, part in parts.items():
        await ctx.media.add_to_archive(archive, name, encode(part))
    for chat in await store.messages.chat_keys(account):
        after, number = "0", 0
        while after:
            items, after = await store.messages.history(account, chat, -1, int(after), big)
            number += 1
            name = f"messages/{shown_key(chat)}/{number:05}.json"
            if items:
                await ctx.media.add_to_archive(archive, name, b"[" + b",\n".join(items) + b"]")
    await _fill_files(ctx, archive, account)


async def _fill_files(ctx: Context, archive: Path, account: int) -> None:
    labels: dict[str, str] = {}
    after = 0
    while owned := await ctx.store.files.owned(account, after, EXPORT_PAGE):
        for after, path, label in owned:  # noqa: B007  # the next page begins behind the last one
            name = f"files/{path.rpartition('/')[2]}"
            labels[name] = label
            await ctx.media.add_stored(archive, name, path)
    await ctx.media.add_to_archive(archive, "files.json", encode(labels))


async def report(ctx: Context, session: Session, request: Report) -> Empty:
    """Tell the operator about a user or a message."""
    actor = session.who
    reason = (request.reason or "").strip()
    if not reason:
        raise BadField("reason", "reason is empty")
    message = 0
    if request.msg_id:
        message = user_number(request.msg_id)
        if not message:
            raise Refusal(Status.NOT_FOUND, "no such message", field="msgId")
    user = 0 if message else user_id(request.user_id)
    await ctx.store.lifecycle.report(actor, user, message, reason)
    return Empty()


COMMANDS = (
    Command("delete_account", delete_account, DeleteAccount, Needs.SESSION),
    Command("export_account", export_account, Request, Needs.SESSION, budget="files"),
    Command("report", report, Report, Needs.SESSION),
)
