"""Files: saving them whole or in parts, reading them, and removing what nobody needs.

Here the bytes on the disk and the rows in the store meet. A row is committed when its bytes are
safe, bytes are deleted when their row is gone, and whoever does either holds the turn of that file
or upload: two people may save one content while the sweep wants to remove it.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from ..clock import HOUR_MS
from ..commands import Command, Context, Needs, Request
from ..errors import BadField, Refusal
from ..media import Fresh, Part, key_of
from ..model import Actor, Maybe, Natural
from ..session import Session
from ..status import Status

Name = Annotated[str, Meta(max_length=255)]
Token = Annotated[str, Meta(max_length=64)]
PURPOSES = ("message", "avatar")

# How many rows one step of the sweep looks at, and its rest after each, in seconds.
STEP = 500
PAUSE = 0.01
# Of the 256 folders of files, how many one sweep an hour looks through for strays.
FOLDERS = 16


class SaveFile(Request):
    """The fields of `save_file`; the name is a label."""

    name: Name | None = None
    content: str | None = None
    md5: str | None = None
    purpose: str | None = None


class SavePart(Request):
    """The fields of `save_part`; name and md5 count where `done` is."""

    upload: Token | None = None
    offset: Natural | Maybe = None
    content: str | None = None
    name: Name | None = None
    md5: str | None = None
    done: bool | Maybe = None


class GetFile(Request):
    """The fields of `get_file`."""

    path: str | None = None
    offset: Natural | Maybe = None
    length: Natural | Maybe = None


class SavedOut(Struct):
    """Where a saved file can be read."""

    path: str
    thumbnail: str | UnsetType = UNSET


class PartOut(Struct):
    """How far an upload has come: the next part begins at `offset`."""

    upload: str
    offset: int


class FileOut(Struct):
    """A piece of a file, as base64, and what the whole is."""

    content: str
    size: int
    md5: str
    mime: str


async def save_file(ctx: Context, session: Session, request: SaveFile) -> SavedOut:
    """Save a whole file for a message, or a picture for an avatar."""
    actor = session.who
    purpose = request.purpose or PURPOSES[0]
    if purpose not in PURPOSES:
        raise BadField("purpose", f"purpose is {' or '.join(PURPOSES)}")
    fresh = await ctx.media.receive(
        request.content or "",
        most=ctx.config.media.inline_max,
        md5=request.md5 or "",
        avatar=purpose == "avatar",
    )
    add = ctx.store.files.add
    await keep(ctx, fresh, partial(add, actor, request.name or "", fresh.file, fresh.thumbnail))
    return SavedOut(fresh.file.path, fresh.thumbnail.path if fresh.thumbnail else UNSET)


async def save_part(ctx: Context, session: Session, request: SavePart) -> PartOut | SavedOut:
    """Save the next part of a file; without content it tells how far the upload has come."""
    actor = session.who
    offset = request.offset or 0
    part = await ctx.media.decode(request.content or "", most=ctx.config.media.inline_max)
    most = ctx.config.media.part_max
    if offset + len(part.data) > most:
        raise _bad_content(f"a file has at most {most} bytes")
    upload = request.upload or _new_upload(ctx, session, offset, part)
    async with ctx.turns.of(("upload", upload)):
        if request.upload:
            size, path = await _append(ctx, actor, upload, offset, part, done=bool(request.done))
        else:
            size, path = await _begin(ctx, actor, upload, part), ""
        if path:
            return SavedOut(path)
        if not request.done:
            return PartOut(upload, size)
        return await _finish(ctx, actor, upload, size, request)


async def get_file(ctx: Context, session: Session, request: GetFile) -> FileOut:
    """Read a piece of a file that the caller may read."""
    account = session.who.account
    if not request.path:
        raise BadField("path", "path is empty")
    most = ctx.config.media.get_max
    offset = request.offset or 0
    length = most if request.length is None or request.length == "" else request.length
    if not 1 <= length <= most:
        raise BadField("length", f"length is 1 to {most}")
    path, size, md5, mime = await ctx.store.files.readable(account, request.path)
    if offset > size:
        raise BadField("offset", f"this file has {size} bytes")
    content = await ctx.media.read(path, offset, length, size)
    return FileOut(content, size, md5, mime)


# --- uploads ----------------------------------------------------------------------------------


def _new_upload(ctx: Context, session: Session, offset: int, part: Part) -> str:
    """Give the name of a new upload, if this may be its first part."""
    if offset:
        raise BadField("offset", "offset is 0 for a new upload")
    if not part.data:
        raise _bad_content("the content is empty")
    ctx.spend(session, "files")
    return ctx.token()


async def _begin(ctx: Context, actor: Actor, upload: str, part: Part) -> int:
    """Save the first part of an upload; gives its size."""
    await ctx.media.write_part(upload, 0, part.data)
    try:
        await ctx.store.files.begin(actor, upload, len(part.data), part.digest)
    except Refusal:
        # Nobody was told of this upload.
        await ctx.media.remove_upload(upload)
        raise
    return len(part.data)


async def _append(
    ctx: Context, actor: Actor, upload: str, offset: int, part: Part, *, done: bool
) -> tuple[int, str]:
    """Save the next part, or the last one once more; gives the size, and the path if it has one."""
    known = await ctx.store.files.upload(actor.account, upload)
    length = len(part.data)
    if known.repeats(offset, length, part.digest):
        return known.size, known.path
    if known.path:
        raise Refusal(Status.NOT_FOUND, "this upload is finished", field="upload")
    if not length and not done:
        return known.size, ""
    if offset != known.size:
        raise BadField("offset", f"offset is {known.size}")
    if length:
        await ctx.media.write_part(upload, offset, part.data)
    await ctx.store.files.grow(actor, upload, offset, length, part.digest)
    return offset + length, ""


async def _finish(
    ctx: Context, actor: Actor, upload: str, size: int, request: SavePart
) -> SavedOut:
    """Make a file of an upload; one whose md5 is another ends, for nobody knows which part lies."""
    files = ctx.store.files
    try:
        fresh = await ctx.media.gather(upload, size=size, md5=request.md5 or "")
    except Refusal as problem:
        if problem.status in (Status.FORMAT_ERROR_FILE, Status.NOT_FOUND):
            await files.abandon(actor, upload)
            await ctx.media.remove_upload(upload)
        raise
    await keep(ctx, fresh, partial(files.finish, actor, upload, request.name or "", fresh.file))
    await ctx.media.remove_upload(upload)
    return SavedOut(fresh.file.path)


async def keep(ctx: Context, fresh: Fresh, commit: Callable[[], Awaitable[object]]) -> None:
    """Give a written file its path, then its row; if that is refused, it is removed again."""
    async with ctx.turns.of(("file", key_of(fresh.file.path))):
        try:
            await ctx.media.publish(fresh)
            await commit()
        except Refusal as problem:
            # Of a commit that failed nobody knows whether it is on the disk.
            if problem.status != Status.RESTARTING:
                await _remove_strays(ctx, [stored.path for _, stored in fresh.written])
            raise
        finally:
            await ctx.media.discard(fresh)


def _bad_content(text: str) -> Refusal:
    return Refusal(Status.FORMAT_ERROR_FILE, text, field="content")


# --- upkeep -----------------------------------------------------------------------------------


async def sweep(ctx: Context) -> None:
    """Remove unfinished uploads, files that nothing refers to, and bytes without a row.

    Goes in small steps; each may fail and is done again the next time. Run it once an hour.
    """
    await _sweep_uploads(ctx)
    await _sweep_unused(ctx)
    await _sweep_strays(ctx)


async def _sweep_uploads(ctx: Context) -> None:
    while expired := await ctx.store.files.expired_uploads(STEP):
        for upload in expired:
            async with ctx.turns.of(("upload", upload)):
                await ctx.store.files.drop_upload(upload)
                await _remove_stray_uploads(ctx, [upload])
        await ctx.clock.sleep(PAUSE)


async def _sweep_unused(ctx: Context) -> None:
    after = 0
    while True:
        paths, after = await ctx.store.files.unused(after, STEP)
        for path in paths:
            async with ctx.turns.of(("file", key_of(path))):
                for gone in await ctx.store.files.remove(path):
                    await ctx.media.remove(gone)
        if not after:
            return
        await ctx.clock.sleep(PAUSE)


async def _sweep_strays(ctx: Context) -> None:
    """Remove bytes without a row, which a crash between the two leaves."""
    hour = ctx.clock.wall() // HOUR_MS
    for number in range(hour * FOLDERS, (hour + 1) * FOLDERS):
        paths = await ctx.media.paths(number % 256)
        for path in await ctx.store.files.strays(paths):
            async with ctx.turns.of(("file", key_of(path))):
                await _remove_strays(ctx, [path])
        await ctx.clock.sleep(PAUSE)
    for upload in await ctx.store.files.stray_uploads(await ctx.media.uploads()):
        async with ctx.turns.of(("upload", upload)):
            await _remove_stray_uploads(ctx, [upload])


async def _remove_strays(ctx: Context, paths: list[str]) -> None:
    """Delete those of these files that have no row; the caller holds their turn."""
    for path in await ctx.store.files.strays(paths):
        await ctx.media.remove(path)


async def _remove_stray_uploads(ctx: Context, uploads: list[str]) -> None:
    """Delete those of these uploads that have no row; the caller holds their turn."""
    for upload in await ctx.store.files.stray_uploads(uploads):
        await ctx.media.remove_upload(upload)


COMMANDS = (
    Command("save_file", save_file, SaveFile, Needs.SESSION, budget="files"),
    Command("save_part", save_part, SavePart, Needs.SESSION),
    Command("get_file", get_file, GetFile, Needs.SESSION),
)
