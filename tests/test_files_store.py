"""Files with their rows: rights, quotas, uploads, races, crashes and the sweep, in process.

`Bench` is a store and a folder of files with a clock that a test moves. What a connection would
ask goes through the handlers, as it does in the server.
"""

import asyncio
import base64
import functools
import hashlib
import os
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import uvloop

from pushd.clock import Clock, Dates
from pushd.commands import Context
from pushd.config import Config, Server, load
from pushd.config import Media as Settings
from pushd.config import Store as StoreConfig
from pushd.draft import drafts
from pushd.errors import ConfigError, Refusal, StoreFailed, TooMany
from pushd.handlers import file as handlers
from pushd.handlers.file import FileOut, GetFile, PartOut, SavedOut, SaveFile, SavePart
from pushd.hub import Hub
from pushd.limits import Budget, Penalties
from pushd.media import Media, key_of
from pushd.model import Accepted, Actor, Failed, InfoIn, MessageIn, MessageType
from pushd.passwords import Hasher
from pushd.session import Session
from pushd.status import Status
from pushd.store import FILE, Post, Store
from pushd.store.journal import Journal
from pushd.store.references import check_picture, disown

HOUR = 3_600_000  # in ms
DAY = 24 * HOUR
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
PNG = b"\x89PNG\r\n\x1a\n"


class StillClock(Clock):
    """A clock that only a test moves; who sleeps is woken at once."""

    def __init__(self) -> None:
        self.ms = 1_700_000_000_000

    def now(self) -> float:
        """Give monotonic seconds."""
        return self.ms / 1000

    def wall(self) -> int:
        """Give milliseconds since 1970."""
        return self.ms

    async def sleep(self, seconds: float) -> None:
        """Let the others go on."""
        await asyncio.sleep(0)


class NoLink:
    """The connection of nobody."""

    def wake(self) -> None: ...
    def signal(self, data: bytes) -> None: ...
    def evict(self, data: bytes, reason: str) -> None: ...


class Bench:
    """A store, its files, and what people do with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = StillClock()
        self.settings: dict[str, Any] = {}
        self.store: Store
        self.media: Media
        self.ctx: Context
        self._phones = iter(range(13_800_000_000, 13_900_000_000))
        self._tokens = iter(range(10**9, 10**10))

    async def open(self, **settings: Any) -> None:
        """Open the folder with changed settings of files."""
        self.settings |= settings
        config = Config(
            server=Server(data=str(self.folder)),
            store=StoreConfig(reserve=0, readers=1),
            media=Settings(**self.settings),
        )
        self.store = await Store.open(config, self.clock)
        self.store.start(lambda deliveries, signals: None)
        self.media = Media(self.folder, picture_pixels=config.media.picture_pixels)
        self.media.open()
        dates = Dates("UTC")
        self.ctx = Context(
            store=self.store,
            hub=Hub(self.clock, dates),
            clock=self.clock,
            dates=dates,
            config=config,
            hasher=Hasher(4, 1, 1),
            media=self.media,
            penalties=Penalties(5, 60.0, 100),
            budgets={"files": Budget(600, 3600.0, 100)},
            token=lambda: f"upload-{next(self._tokens)}",
        )

    async def close(self) -> None:
        """Close the folder."""
        self.media.close()
        self.ctx.hasher.close()
        await self.store.close()

    async def reopen(self, **settings: Any) -> None:
        """Close the folder and open it again, as a restart does."""
        await self.close()
        await self.open(**settings)

    def sql(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Read what is committed."""
        with closing(sqlite3.connect(self.folder / FILE)) as db:
            return db.execute(query, values).fetchall()

    def on_disk(self) -> set[str]:
        """All files below the media folder."""
        found = (self.folder / "media").rglob("*")
        return {str(path.relative_to(self.folder)) for path in found if path.is_file()}

    async def write(self, change: Callable[[Journal], object]) -> None:
        """Do something in the writer's thread."""
        await self.store.writer.call(change)

    # --- people ---------------------------------------------------------------------------

    async def user(self) -> Session:
        """Register somebody and log them in."""
        account = await self.store.accounts.register(str(next(self._phones)), b"hash", "")
        session = Session(1, "127.0.0.1", NoLink(), 270)
        session.login(Actor(account.id, 0, account.generation))
        return session

    async def friends(self) -> tuple[Session, Session]:
        """Make two friends."""
        one, other = await self.user(), await self.user()
        await self.store.friends.ask(one.who, other.account, "")
        await self.store.friends.accept(other.who, one.account)
        return one, other

    async def group(self, owner: Session, *others: Session) -> str:
        """Make a group of friends."""
        users = [each.account for each in others]
        return await self.store.groups.create(owner.who, "a group", "group", users, {})

    # --- files ----------------------------------------------------------------------------

    async def save(self, who: Session, data: bytes, **fields: Any) -> str:
        """Save a file; gives its path."""
        request = SaveFile(content=base64.b64encode(data).decode(), **fields)
        return (await handlers.save_file(self.ctx, who, request)).path

    async def part(self, who: Session, data: bytes = b"", **fields: Any) -> PartOut | SavedOut:
        """Save a part of a file."""
        request = SavePart(content=base64.b64encode(data).decode(), **fields)
        return await handlers.save_part(self.ctx, who, request)

    async def begun(self, who: Session, data: bytes) -> str:
        """Begin an upload; gives its name."""
        reply = await self.part(who, data)
        assert isinstance(reply, PartOut)
        assert reply.offset == len(data)
        return reply.upload

    async def get(self, who: Session, path: str, **fields: Any) -> FileOut:
        """Read a file."""
        return await handlers.get_file(self.ctx, who, GetFile(path=path, **fields))

    async def may_read(self, who: Session, path: str) -> bool:
        """Tell whether somebody may read a file; what they may not is as if it were not there."""
        try:
            await self.get(who, path)
        except Refusal as problem:
            assert (problem.status, problem.field) == (Status.NOT_FOUND, "path")
            return False
        return True

    async def sweep(self) -> None:
        """Sweep with all folders at once."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(handlers, "FOLDERS", 256)
            await handlers.sweep(self.ctx)

    # --- messages -------------------------------------------------------------------------

    async def post(self, who: Session, path: str, **fields: Any) -> int:
        """Send a picture; gives its msgId."""
        [result] = await self.try_post(who, path, **fields)
        assert isinstance(result, Accepted), result
        return result.msg_id

    async def try_post(self, who: Session, *paths: str, **fields: Any) -> list[Accepted | Failed]:
        """Send pictures in one list; gives what became of it."""
        future: asyncio.Future[Post] = asyncio.get_running_loop().create_future()
        fields.setdefault("type", str(int(MessageType.NORMAL)))
        operation = Post(who.who, future.set_result)
        messages = [MessageIn(info=InfoIn("1", path), **fields) for path in paths]
        operation.add(drafts(messages, who.account, self.ctx.config.limits))
        self.store.post(operation)
        [results] = (await future).results
        return list(results)


def to(who: Session) -> dict[str, str]:
    return {"to_id": str(who.account)}


def to_group(key: str) -> dict[str, str]:
    return {"chat_id": key, "type": str(int(MessageType.GROUP))}


def on_both_loops(test: Callable[[Bench], Awaitable[None]]) -> Callable[[str, Path], None]:
    """Run a test of a bench on asyncio's own loop and on uvloop."""

    async def with_bench(folder: Path) -> None:
        bench = Bench(folder)
        await bench.open()
        try:
            await test(bench)
        finally:
            await bench.close()

    @pytest.mark.parametrize("loop", LOOPS)
    def run(loop: str, tmp_path: Path) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(with_bench(tmp_path / "data"))

    functools.update_wrapper(run, test)
    del run.__dict__["__wrapped__"]  # pytest would ask for the test's own arguments
    return run


async def refused(status: Status, work: Awaitable[object], field: str = "") -> str:
    """Await what must be refused; gives its text."""
    with pytest.raises(Refusal) as caught:
        await work
    assert (caught.value.status, caught.value.field) == (status, field), caught.value
    return caught.value.message


# --- who may read -----------------------------------------------------------------------------


@on_both_loops
async def test_a_file_is_its_owners_until_it_is_sent(bench: Bench) -> None:
    """A path is no secret: without a right to the file it leads to nothing."""
    a, b = await bench.friends()
    path = await bench.save(a, b"hello")
    assert await bench.may_read(a, path)
    assert not await bench.may_read(b, path)
    await bench.post(a, path, **to(b))
    assert await bench.may_read(b, path)
    assert not await bench.may_read(await bench.user(), path)


@on_both_loops
async def test_two_owners_of_one_content(bench: Bench) -> None:
    """Both own the one stored file, each under a label of their own."""
    a, b = await bench.user(), await bench.user()
    path = await bench.save(a, b"hello", name="mine")
    assert await bench.save(b, b"hello", name="yours") == path
    assert await bench.may_read(a, path)
    assert await bench.may_read(b, path)
    assert bench.on_disk() == {path}
    assert bench.sql("SELECT account, name FROM file_owner ORDER BY account") == [
        (a.account, "mine"),
        (b.account, "yours"),
    ]


@on_both_loops
async def test_a_member_reads_what_was_sent_while_they_were_in(bench: Bench) -> None:
    """Neither what was sent before somebody joined nor what comes after they left."""
    a, b = await bench.friends()
    _, late = a, await bench.user()
    await bench.store.friends.ask(a.who, late.account, "")
    await bench.store.friends.accept(late.who, a.account)
    group = await bench.group(a, b)
    early, middle, last = [await bench.save(a, text) for text in (b"early", b"middle", b"last")]
    await bench.post(a, early, **to_group(group))
    await bench.store.groups.invite(a.who, group, [late.account])
    await bench.post(a, middle, **to_group(group))
    await bench.store.groups.kick(a.who, group, [b.account])
    await bench.post(a, last, **to_group(group))
    assert [await bench.may_read(b, path) for path in (early, middle, last)] == [True, True, False]
    assert [await bench.may_read(late, path) for path in (early, middle, last)] == [
        False,
        True,
        True,
    ]


@on_both_loops
async def test_a_recalled_message_takes_its_file_back(bench: Bench) -> None:
    """Who has not read the file by then cannot; another message with it still gives the right."""
    a, b = await bench.friends()
    path = await bench.save(a, b"hello")
    first, second = [await bench.post(a, path, **to(b)) for _ in range(2)]
    await bench.store.messages.recall(a.who, first, 0)
    assert await bench.may_read(b, path)
    await bench.store.messages.recall(a.who, second, 0)
    assert not await bench.may_read(b, path)
    assert await bench.may_read(a, path)


@on_both_loops
async def test_an_expired_message_gives_no_right(bench: Bench) -> None:
    """What is not shown any more is not read any more."""
    a, b = await bench.friends()
    path = await bench.save(a, b"hello")
    await bench.post(a, path, **to(b), expire=10)
    assert await bench.may_read(b, path)
    bench.clock.ms += 10_000
    assert not await bench.may_read(b, path)


@on_both_loops
async def test_avatars_are_for_all(bench: Bench) -> None:
    """A picture can be read by anybody as long as it is somebody's or a group's avatar."""
    a, b = await bench.friends()
    stranger = await bench.user()
    for number, avatar in enumerate((b"one", b"two")):
        path = await bench.save(a, PNG + avatar)
        assert not await bench.may_read(stranger, path)
        if number:
            group = await bench.group(a, b)
            await bench.store.groups.update(a.who, group, {"avatar": path})
        else:
            await bench.store.accounts.complete(a.who, None, {"avatar": path})
        assert await bench.may_read(stranger, path)
    other = await bench.save(a, PNG + b"three")
    await bench.store.accounts.complete(a.who, None, {"avatar": other})
    assert not await bench.may_read(stranger, await bench.save(a, PNG + b"one"))


@on_both_loops
async def test_an_avatar_is_a_picture_of_ones_own(bench: Bench) -> None:
    """8006 for a file, another's picture, no path; and the group or account stays as it was."""
    a, b = await bench.friends()
    group = await bench.group(a, b)
    theirs, plain = await bench.save(b, PNG + b"b"), await bench.save(a, b"plain")
    await bench.post(b, theirs, **to(a))
    for path in (theirs, plain, "media/../pushd.db", "x"):
        for work in (
            bench.store.accounts.complete(a.who, "new name", {"avatar": path}),
            bench.store.groups.update(a.who, group, {"name": "new name", "avatar": path}),
            bench.store.groups.create(a.who, "new name", "group", [], {"avatar": path}),
            bench.write(functools.partial(check_picture, account=a.account, path=path)),
        ):
            await refused(Status.FORMAT_ERROR_AVATAR, work, "avatar")
    assert bench.sql("SELECT count(*) FROM account WHERE username <> ''") == [(0,)]
    assert bench.sql("SELECT name, avatar FROM groups") == [("a group", "")]


@on_both_loops
async def test_a_thumbnail_goes_with_its_picture(bench: Bench) -> None:
    """Who may read the picture may read its thumbnail, which cannot be an avatar itself."""
    a, b = await bench.friends()
    stranger = await bench.user()
    path = await bench.save(a, PNG)
    small = f"{path.removesuffix('.png')}-256.jpg"
    (bench.folder / small).write_bytes(b"small")
    file = (path, len(PNG), hashlib.md5(PNG).hexdigest(), "image/png")
    await bench.store.files.add(a.who, "", file, (small, 5, "", "image/jpeg"))
    assert [await bench.may_read(who, small) for who in (a, b, stranger)] == [True, False, False]
    await bench.post(a, small, **to(b))
    assert [await bench.may_read(who, small) for who in (a, b, stranger)] == [True, True, False]
    assert await bench.may_read(b, path)
    work = bench.store.accounts.complete(a.who, None, {"avatar": small})
    await refused(Status.FORMAT_ERROR_AVATAR, work, "avatar")
    await bench.store.accounts.complete(a.who, None, {"avatar": path})
    assert await bench.may_read(stranger, small)


@on_both_loops
async def test_only_files_that_one_may_read_can_be_sent(bench: Bench) -> None:
    """4005 for a path of nobody's or somebody else's, and nothing of that list is stored."""
    a, b = await bench.friends()
    stranger = await bench.user()
    mine, theirs = await bench.save(a, b"mine"), await bench.save(stranger, b"theirs")
    for bad in (theirs, "media/../pushd.db", "media/x", "x"):
        [failed] = await bench.try_post(a, mine, bad, **to(b))
        assert isinstance(failed, Failed)
        assert (failed.index, failed.status, failed.field) == (1, 4005, "message[1].info")
    assert bench.sql("SELECT count(*) FROM file_ref") == [(0,)]
    assert not await bench.may_read(b, mine)
    # What one was sent one may pass on, at once.
    c = await bench.user()
    await bench.store.friends.ask(b.who, c.account, "")
    await bench.store.friends.accept(c.who, b.account)
    sent, passed = await asyncio.gather(
        bench.try_post(a, mine, **to(b)), bench.try_post(b, mine, **to(c))
    )
    assert isinstance(sent[0], Accepted)
    assert isinstance(passed[0], Accepted)
    assert await bench.may_read(c, mine)


@on_both_loops
async def test_a_repeated_message_refers_once(bench: Bench) -> None:
    """A retry is confirmed again, also when its file could not be sent any more."""
    a, b = await bench.friends()
    path = await bench.save(a, b"hello")
    number = await bench.post(a, path, client_id="c", **to(b))
    await bench.write(lambda journal: journal.db.execute("DELETE FROM file_owner"))
    await bench.store.messages.recall(a.who, number, 0)
    assert not await bench.may_read(a, path)
    assert await bench.post(a, path, client_id="c", **to(b)) == number
    assert bench.sql("SELECT message FROM file_ref") == [(number,)]


# --- quotas and budgets -----------------------------------------------------------------------


@on_both_loops
async def test_an_account_has_a_quota_of_bytes(bench: Bench) -> None:
    """Exactly as many bytes as allowed, stored and unfinished ones together."""
    await bench.reopen(quota_bytes=20)
    a, b = await bench.user(), await bench.user()
    await bench.save(a, b"0123456789")
    upload = await bench.begun(a, b"01234")
    await refused(Status.LIMIT_REACHED, bench.save(a, b"x" * 6))
    await refused(Status.LIMIT_REACHED, bench.part(a, b"x" * 6))
    await refused(Status.LIMIT_REACHED, bench.part(a, b"x" * 6, upload=upload, offset=5))
    await bench.save(a, b"0123456789")
    await bench.save(b, b"x" * 20)
    before = bench.on_disk()
    await refused(Status.LIMIT_REACHED, bench.save(a, b"y" * 6))
    assert bench.on_disk() == before
    done = await bench.part(a, b"xxxxx", upload=upload, offset=5, done=True)
    assert isinstance(done, SavedOut)
    await refused(Status.LIMIT_REACHED, bench.save(a, b"x"))
    assert bench.sql("SELECT sum(size) FROM file_owner WHERE account = ?", a.account) == [(20,)]


@on_both_loops
async def test_the_same_content_counts_once_for_an_account(bench: Bench) -> None:
    """Saving again what one has takes nothing of the quota, and what another has does."""
    await bench.reopen(quota_bytes=10, quota_count=1)
    a, b = await bench.user(), await bench.user()
    path = await bench.save(a, b"0123456789")
    assert await bench.save(a, b"0123456789") == path
    assert await bench.save(b, b"0123456789") == path
    await refused(Status.LIMIT_REACHED, bench.save(b, b"x"))


@on_both_loops
async def test_an_account_has_a_quota_of_files(bench: Bench) -> None:
    """Exactly as many files as allowed, unfinished ones included."""
    await bench.reopen(quota_count=3)
    a = await bench.user()
    await bench.save(a, b"1")
    await bench.save(a, b"2")
    upload = await bench.begun(a, b"3")
    await refused(Status.LIMIT_REACHED, bench.save(a, b"4"))
    await refused(Status.LIMIT_REACHED, bench.part(a, b"4"))
    assert isinstance(await bench.part(a, upload=upload, offset=1, done=True), SavedOut)
    await refused(Status.LIMIT_REACHED, bench.save(a, b"4"))


@on_both_loops
async def test_a_finished_upload_counts_once(bench: Bench) -> None:
    """What became a file takes no more of the quota than the file."""
    await bench.reopen(quota_bytes=20, quota_count=2)
    a = await bench.user()
    await bench.part(a, b"0123456789", done=True)
    await bench.save(a, b"9876543210")
    await refused(Status.LIMIT_REACHED, bench.save(a, b"x"))


@on_both_loops
async def test_an_account_has_so_many_open_uploads(bench: Bench) -> None:
    """One more is refused until one is finished or its time is over."""
    await bench.reopen(uploads=2)
    a = await bench.user()
    first, _ = await bench.begun(a, b"1"), await bench.begun(a, b"2")
    await refused(Status.LIMIT_REACHED, bench.part(a, b"3"))
    assert len(await bench.media.uploads()) == 2
    await bench.part(a, upload=first, offset=1, done=True)
    await bench.begun(a, b"3")
    await refused(Status.LIMIT_REACHED, bench.part(a, b"4"))
    bench.clock.ms += 24 * HOUR + 1
    await bench.begun(a, b"4")


@on_both_loops
async def test_many_savers_at_once_share_the_quota(bench: Bench) -> None:
    """However many connections save at once, the quota holds, and the refused leave nothing."""
    await bench.reopen(quota_bytes=50)
    a = await bench.user()
    work = [bench.save(a, bytes([number]) * 10) for number in range(20)]
    outcomes = await asyncio.gather(*work, return_exceptions=True)
    paths = {outcome for outcome in outcomes if isinstance(outcome, str)}
    problems = [outcome.status for outcome in outcomes if isinstance(outcome, Refusal)]
    assert len(paths) == 5
    assert problems == [Status.LIMIT_REACHED] * 15
    assert bench.on_disk() == paths


@on_both_loops
async def test_new_uploads_spend_the_budget(bench: Bench) -> None:
    """An upload counts once, however many parts it has."""
    a = await bench.user()
    bench.ctx.budgets = {"files": Budget(2, 3600.0, 100)}
    upload = await bench.begun(a, b"0")
    for offset in range(1, 5):
        await bench.part(a, b"0", upload=upload, offset=offset)
    await bench.begun(a, b"0")
    with pytest.raises(TooMany):
        await bench.part(a, b"0")


# --- uploads ----------------------------------------------------------------------------------


@on_both_loops
async def test_an_upload_goes_on_after_a_restart(bench: Bench) -> None:
    """What was confirmed of it is there; bytes that were not are written over."""
    a = await bench.user()
    upload = await bench.begun(a, b"01234")
    await bench.media.write_part(upload, 5, b"not confirmed")
    await bench.reopen()
    reply = await bench.part(a, upload=upload)
    assert isinstance(reply, PartOut)
    assert reply.offset == 5
    done = await bench.part(
        a, b"56789", upload=upload, offset=5, done=True, name="ten",
        md5=hashlib.md5(b"0123456789").hexdigest(),
    )  # fmt: skip
    assert isinstance(done, SavedOut)
    assert (await bench.get(a, done.path)).content == base64.b64encode(b"0123456789").decode()
    assert bench.sql("SELECT name FROM file_owner") == [("ten",)]
    assert bench.on_disk() == {done.path}


@on_both_loops
async def test_a_part_begins_where_the_last_one_ended(bench: Bench) -> None:
    """Another offset is refused and says the right one; nothing of the part is taken."""
    a = await bench.user()
    upload = await bench.begun(a, b"01234")
    for offset in (0, 4, 6, 100):
        work = bench.part(a, b"x", upload=upload, offset=offset)
        assert "5" in await refused(Status.BAD_FIELD, work, "offset")
    await refused(Status.BAD_FIELD, bench.part(a, b"x", offset=5), "offset")
    await refused(Status.BAD_FIELD, bench.part(a, upload=upload, offset=4, done=True), "offset")
    done = await bench.part(a, b"5", upload=upload, offset=5, done=True)
    assert isinstance(done, SavedOut)
    assert (await bench.get(a, done.path)).content == base64.b64encode(b"012345").decode()


@on_both_loops
async def test_the_place_of_a_part_is_checked_when_it_is_committed(bench: Bench) -> None:
    """Whatever was seen before: a row never says more than was synced in its place."""
    a = await bench.user()
    upload = await bench.begun(a, b"01234")
    files, file = bench.store.files, ("media/x", 6, "", "")
    await refused(Status.BAD_FIELD, files.grow(a.who, upload, 6, 1, b""), "offset")
    await refused(Status.BAD_FIELD, files.finish(a.who, upload, "", file), "offset")
    await bench.part(a, upload=upload, offset=5, done=True)
    await refused(Status.NOT_FOUND, files.grow(a.who, upload, 5, 1, b""), "upload")
    await files.abandon(a.who, upload)
    assert bench.sql("SELECT id FROM upload") == [(upload,)]


@on_both_loops
async def test_the_last_part_may_come_again(bench: Bench) -> None:
    """A reply that was lost costs nothing: the same part is confirmed again, the last one too."""
    a = await bench.user()
    upload = await bench.begun(a, b"01234")
    again = await bench.part(a, b"01234", upload=upload, offset=0)
    assert isinstance(again, PartOut)
    assert again.offset == 5
    await refused(Status.BAD_FIELD, bench.part(a, b"0123x", upload=upload, offset=0), "offset")
    await bench.part(a, b"56", upload=upload, offset=5)
    await refused(Status.BAD_FIELD, bench.part(a, b"01234", upload=upload, offset=0), "offset")
    done = await bench.part(a, b"56", upload=upload, offset=5, done=True)
    await bench.reopen()
    assert await bench.part(a, b"56", upload=upload, offset=5, done=True) == done
    assert isinstance(done, SavedOut)
    assert bench.on_disk() == {done.path}
    work = bench.part(a, b"7", upload=upload, offset=7)
    await refused(Status.NOT_FOUND, work, "upload")


@on_both_loops
async def test_an_end_without_content_may_come_again(bench: Bench) -> None:
    """A client may find out late that it was the end; the repeat is known as well."""
    a = await bench.user()
    upload = await bench.begun(a, b"01234")
    done = await bench.part(a, upload=upload, offset=5, done=True)
    assert isinstance(done, SavedOut)
    assert await bench.part(a, upload=upload, offset=5, done=True) == done


@on_both_loops
async def test_another_md5_ends_an_upload(bench: Bench) -> None:
    """Nobody knows which part is wrong: nothing is stored, and the upload is gone."""
    a = await bench.user()
    upload = await bench.begun(a, b"01234")
    work = bench.part(a, b"5", upload=upload, offset=5, done=True, md5="0" * 32)
    await refused(Status.FORMAT_ERROR_FILE, work, "md5")
    await refused(Status.NOT_FOUND, bench.part(a, upload=upload), "upload")
    assert bench.on_disk() == set()
    assert bench.sql("SELECT (SELECT count(*) FROM file), (SELECT count(*) FROM upload)") == [
        (0, 0)
    ]


@on_both_loops
async def test_uploads_are_ones_own(bench: Bench) -> None:
    """Another's upload is as if it were not there."""
    a, b = await bench.user(), await bench.user()
    upload = await bench.begun(a, b"01234")
    for name in (upload, "x", "../tmp", upload + "x"):
        for fields in ({}, {"offset": 5}, {"offset": 5, "done": True}):
            work = bench.part(b, b"x", upload=name, **fields)
            await refused(Status.NOT_FOUND, work, "upload")
    assert isinstance(await bench.part(a, b"5", upload=upload, offset=5), PartOut)


@on_both_loops
async def test_an_upload_has_its_limits(bench: Bench) -> None:
    """A part and the whole have a size; content is needed where one begins."""
    await bench.reopen(inline_max=10, part_max=25)
    a = await bench.user()
    await refused(Status.FORMAT_ERROR_FILE, bench.part(a, b"x" * 11), "content")
    await refused(Status.FORMAT_ERROR_FILE, bench.part(a), "content")
    await refused(Status.FORMAT_ERROR_FILE, bench.part(a, done=True), "content")
    upload = await bench.begun(a, b"0" * 10)
    await bench.part(a, b"1" * 10, upload=upload, offset=10)
    work = bench.part(a, b"2" * 6, upload=upload, offset=20)
    await refused(Status.FORMAT_ERROR_FILE, work, "content")
    done = await bench.part(a, b"2" * 5, upload=upload, offset=20, done=True)
    assert isinstance(done, SavedOut)
    assert (await bench.get(a, done.path)).size == 25
    assert isinstance(await bench.part(a, b"all", done=True), SavedOut)


@on_both_loops
async def test_an_upload_ends_after_its_hours(bench: Bench) -> None:
    """Each part gives it new hours; then it is gone, whether it has been swept or not."""
    a = await bench.user()
    upload = await bench.begun(a, b"0")
    bench.clock.ms += 24 * HOUR
    await bench.part(a, b"1", upload=upload, offset=1)
    bench.clock.ms += 24 * HOUR
    await bench.sweep()
    assert isinstance(await bench.part(a, upload=upload), PartOut)
    bench.clock.ms += 1
    await refused(Status.NOT_FOUND, bench.part(a, upload=upload), "upload")
    work = bench.part(a, b"2", upload=upload, offset=2, done=True)
    await refused(Status.NOT_FOUND, work, "upload")
    await bench.sweep()
    assert bench.on_disk() == set()
    assert bench.sql("SELECT * FROM upload") == []


@on_both_loops
async def test_one_part_from_two_connections_at_once(bench: Bench) -> None:
    """Of two different parts for one place one is taken; the same part twice is taken once."""
    a = await bench.user()
    upload = await bench.begun(a, b"01234")
    outcomes = await asyncio.gather(
        bench.part(a, b"5", upload=upload, offset=5),
        bench.part(a, b"x", upload=upload, offset=5),
        bench.part(a, b"5", upload=upload, offset=5),
        return_exceptions=True,
    )
    assert [isinstance(outcome, PartOut) for outcome in outcomes] in (
        [True, False, True],
        [False, True, False],
    )
    taken = b"012345" if isinstance(outcomes[0], PartOut) else b"01234x"
    ends = await asyncio.gather(
        *(bench.part(a, upload=upload, offset=6, done=True) for _ in range(3))
    )
    assert isinstance(ends[0], SavedOut)
    assert ends[1:] == ends[:1] * 2
    assert (await bench.get(a, ends[0].path)).content == base64.b64encode(taken).decode()
    assert len(bench.on_disk()) == 1


@on_both_loops
async def test_lost_bytes_end_an_upload(bench: Bench) -> None:
    """When the disk lost what was confirmed, the client is told to begin anew."""
    a = await bench.user()
    upload = await bench.begun(a, b"01234")
    await bench.media.remove_upload(upload)
    work = bench.part(a, upload=upload, offset=5, done=True)
    await refused(Status.NOT_FOUND, work, "upload")
    assert bench.sql("SELECT * FROM upload") == []


# --- crashes ----------------------------------------------------------------------------------


@on_both_loops
async def test_bytes_without_a_row_are_no_file(bench: Bench) -> None:
    """A crash between file and row leaves no path that works; the sweep removes the bytes."""
    a, b = await bench.friends()
    fresh = await bench.media.receive(base64.b64encode(b"hello").decode(), most=5)
    await bench.media.publish(fresh)
    path = fresh.file.path
    await bench.reopen()
    assert bench.on_disk() == {path}
    assert not await bench.may_read(a, path)
    [failed] = await bench.try_post(a, path, **to(b))
    assert isinstance(failed, Failed)
    await bench.sweep()
    assert bench.on_disk() == set()
    assert await bench.save(a, b"hello") == path
    assert await bench.may_read(a, path)


@on_both_loops
async def test_a_crash_before_an_upload_is_a_file(bench: Bench) -> None:
    """The bytes got their path but no row: the client repeats its last part, and all is well."""
    a = await bench.user()
    upload = await bench.begun(a, b"01234")
    await bench.media.write_part(upload, 5, b"567")
    await bench.media.publish(await bench.media.gather(upload, size=8))
    await bench.reopen()
    done = await bench.part(a, b"5xy", upload=upload, offset=5, done=True)
    assert isinstance(done, SavedOut)
    await bench.sweep()
    assert bench.on_disk() == {done.path}
    assert (await bench.get(a, done.path)).content == base64.b64encode(b"012345xy").decode()


@on_both_loops
async def test_a_row_without_bytes_is_not_found(bench: Bench) -> None:
    """A file that the disk lost is 4005, and saving it again mends it."""
    a = await bench.user()
    path = await bench.save(a, b"hello")
    (bench.folder / path).unlink()
    assert not await bench.may_read(a, path)
    await bench.save(a, b"hello")
    assert await bench.may_read(a, path)


@on_both_loops
async def test_a_commit_of_which_nothing_is_known_keeps_the_bytes(bench: Bench) -> None:
    """After a failed sync the row may be on the disk: its bytes must be there too."""
    a = await bench.user()
    task = bench.store._task
    assert task is not None

    def fail(*_: object) -> None:
        raise StoreFailed("the sync failed")

    bench.store.writer.journal.commit = fail  # type: ignore[method-assign]
    await refused(Status.RESTARTING, bench.save(a, b"hello"))
    await asyncio.wait([task])
    assert isinstance(task.exception(), StoreFailed)
    assert len(bench.on_disk()) == 1


@on_both_loops
async def test_a_revoked_login_saves_nothing(bench: Bench) -> None:
    """What is committed after the login ended is refused, and leaves no bytes."""
    a = await bench.user()
    upload = await bench.begun(a, b"0")
    before = bench.on_disk()
    await bench.store.accounts.change_password(a.who, b"other")
    await refused(Status.ERROR_NET, bench.save(a, b"hello"))
    await refused(Status.ERROR_NET, bench.part(a, b"hello"))
    await refused(Status.ERROR_NET, bench.part(a, b"1", upload=upload, offset=1))
    assert bench.on_disk() == before


# --- the sweep --------------------------------------------------------------------------------


@on_both_loops
async def test_what_nothing_refers_to_is_removed_after_its_days(bench: Bench) -> None:
    """Files of a message or an avatar stay, for ever; others are gone with all their rows."""
    a, b = await bench.friends()
    sent, unsent = await bench.save(a, b"sent"), await bench.save(a, b"unsent")
    avatar, badge = await bench.save(a, PNG + b"a"), await bench.save(a, PNG + b"g")
    recalled, expired = await bench.save(a, b"recalled"), await bench.save(a, b"expired")
    await bench.post(a, sent, **to(b))
    number = await bench.post(a, recalled, **to(b))
    await bench.post(a, expired, **to(b), expire=10)
    await bench.store.messages.recall(a.who, number, 0)
    await bench.store.accounts.complete(a.who, None, {"avatar": avatar})
    await bench.store.groups.update(a.who, await bench.group(a, b), {"avatar": badge})
    bench.clock.ms += 7 * DAY
    await bench.sweep()
    everything = {sent, unsent, avatar, badge, recalled, expired}
    assert bench.on_disk() == everything
    bench.clock.ms += 1
    await bench.sweep()
    assert bench.on_disk() == {sent, avatar, badge}
    assert not await bench.may_read(a, unsent)
    assert {path for (path,) in bench.sql("SELECT path FROM file")} == {sent, avatar, badge}
    assert bench.sql("SELECT count(*) FROM file_owner") == [(3,)]
    assert bench.sql("SELECT count(*) FROM file_ref") == [(1,)]
    [failed] = await bench.try_post(a, unsent, **to(b))
    assert isinstance(failed, Failed)


@on_both_loops
async def test_what_is_used_at_the_last_moment_stays(bench: Bench) -> None:
    """Found unused and then sent: it is looked at again in the turn of its removal."""
    a, b = await bench.friends()
    path = await bench.save(a, b"hello")
    bench.clock.ms += 8 * DAY
    found, _ = await bench.store.files.unused(0, 5)
    assert found == [path]
    await bench.post(a, path, **to(b))
    assert await bench.store.files.remove(path) == []
    assert await bench.may_read(b, path)


@on_both_loops
async def test_saving_again_gives_new_days(bench: Bench) -> None:
    """A file that is saved again by anybody is as new."""
    a, b = await bench.user(), await bench.user()
    path = await bench.save(a, b"hello")
    bench.clock.ms += 7 * DAY
    await bench.save(b, b"hello")
    bench.clock.ms += 1
    await bench.sweep()
    assert await bench.may_read(a, path)
    bench.clock.ms += 7 * DAY
    await bench.sweep()
    assert bench.on_disk() == set()


@on_both_loops
async def test_a_thumbnail_is_swept_with_its_picture(bench: Bench) -> None:
    """Both stay or both go."""
    a = await bench.user()
    path = await bench.save(a, PNG)
    small = f"{path.removesuffix('.png')}-256.jpg"
    (bench.folder / small).write_bytes(b"small")
    file = (path, len(PNG), hashlib.md5(PNG).hexdigest(), "image/png")
    await bench.store.files.add(a.who, "", file, (small, 5, "", "image/jpeg"))
    await bench.store.accounts.complete(a.who, None, {"avatar": path})
    bench.clock.ms += 8 * DAY
    await bench.sweep()
    assert bench.on_disk() == {path, small}
    other = await bench.save(a, PNG + b"other")
    await bench.store.accounts.complete(a.who, None, {"avatar": other})
    await bench.sweep()
    assert bench.on_disk() == {other}


@on_both_loops
async def test_the_sweep_goes_in_steps(bench: Bench) -> None:
    """More than one step holds is removed all the same, and what stays does not stop it."""
    a, b = await bench.friends()
    paths = [await bench.save(a, b"%d" % number) for number in range(12)]
    for path in paths[::3]:
        await bench.post(a, path, **to(b))
    for number in range(8):
        await bench.begun(a, b"%d" % number)
    bench.clock.ms += 8 * DAY
    found, after = await bench.store.files.unused(0, 5)
    assert set(found) == set(paths[:5]) - set(paths[::3])
    assert after == 5
    assert len(await bench.store.files.expired_uploads(5)) == 5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(handlers, "STEP", 5)
        await bench.sweep()
    assert bench.on_disk() == set(paths[::3])


@on_both_loops
async def test_the_stored_file_goes_after_its_row(bench: Bench) -> None:
    """When bytes are deleted no row speaks of them any more; a crash between leaves only bytes."""
    a = await bench.user()
    path = await bench.save(a, b"hello")
    bench.clock.ms += 8 * DAY
    seen: list[list[tuple[Any, ...]]] = []

    async def crash(path: str) -> None:
        seen.append(bench.sql("SELECT path FROM file"))
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.media, "remove", crash)
        with pytest.raises(KeyboardInterrupt):
            await handlers._sweep_unused(bench.ctx)
    assert seen == [[]]
    assert bench.on_disk() == {path}
    await bench.sweep()
    assert bench.on_disk() == set()


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("seed", range(6))
def test_saving_and_sweeping_at_once(loop: str, seed: int, tmp_path: Path) -> None:
    """Whoever comes first, a path that was given out has its row and its bytes."""

    async def race() -> None:
        bench = Bench(tmp_path / "data")
        await bench.open()
        try:
            a, b = await bench.user(), await bench.user()
            for round_ in range(10):
                data = b"%d" % round_
                await bench.save(a, data)
                bench.clock.ms += 8 * DAY
                sweep = asyncio.ensure_future(handlers.sweep(bench.ctx))
                for _ in range(seed * 3 + round_):
                    await asyncio.sleep(0)
                await asyncio.gather(bench.save(b, data), bench.save(a, data), sweep)
                path = await bench.save(b, data)
                assert await bench.may_read(b, path)
                for (known,) in bench.sql("SELECT path FROM file"):
                    assert (bench.folder / known).exists()
        finally:
            await bench.close()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(race())


@on_both_loops
async def test_a_save_waits_for_the_deletion_of_its_bytes(bench: Bench) -> None:
    """Between row and bytes nobody can save that content: the deletion would take it along."""
    a = await bench.user()
    path = await bench.save(a, b"hello")
    bench.clock.ms += 8 * DAY
    deleting, go_on = asyncio.Event(), asyncio.Event()
    remove = bench.media.remove

    async def slow(path: str) -> None:
        deleting.set()
        await go_on.wait()
        await remove(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.media, "remove", slow)
        sweep = asyncio.ensure_future(handlers._sweep_unused(bench.ctx))
        await deleting.wait()
        save = asyncio.ensure_future(bench.save(a, b"hello"))
        # Another file is saved meanwhile, so that one would have been, too.
        await bench.save(a, b"other")
        assert not save.done()
        go_on.set()
        await asyncio.gather(sweep, save)
    assert await bench.may_read(a, path)
    assert len(bench.ctx.turns) == 0


@on_both_loops
async def test_an_account_that_ends_takes_what_it_never_sent(bench: Bench) -> None:
    """Its own files go with the next sweep; what it sent, and what others saved too, stay."""
    a, b = await bench.friends()
    unsent, shared, sent = [await bench.save(a, text) for text in (b"unsent", b"shared", b"sent")]
    await bench.save(b, b"shared")
    await bench.post(a, sent, **to(b))
    upload = await bench.begun(a, b"unfinished")
    await bench.write(lambda journal: disown(journal, a.account))
    await bench.sweep()
    assert bench.on_disk() == {shared, sent}
    assert await bench.may_read(b, sent)
    assert not await bench.may_read(a, unsent)
    assert not await bench.may_read(a, shared)
    await refused(Status.NOT_FOUND, bench.part(a, upload=upload), "upload")


@on_both_loops
async def test_every_folder_has_its_hour(bench: Bench) -> None:
    """One sweep looks through a few folders, and those of some hours through all of them."""
    looked: list[int] = []
    paths = bench.media.paths

    async def note(folder: int) -> list[str]:
        looked.append(folder)
        return await paths(folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.media, "paths", note)
        for _ in range(256 // handlers.FOLDERS):
            await handlers.sweep(bench.ctx)
            bench.clock.ms += HOUR
    assert len(looked) == 256
    assert set(looked) == set(range(256))


@on_both_loops
async def test_foreign_files_in_the_folder_are_left_alone(bench: Bench) -> None:
    """The sweep deletes only what has the shape of a path of ours."""
    folder = bench.folder / "media" / "ab"
    folder.mkdir()
    for place in (folder / "notes.txt", folder.parent / "notes.txt", folder.parent / "parts" / "x"):
        place.write_text("x")
    await bench.sweep()
    assert len(bench.on_disk()) == 3


# --- reading ----------------------------------------------------------------------------------


@on_both_loops
async def test_a_file_is_read_in_pieces(bench: Bench) -> None:
    """The pieces together are the file; its size, md5 and type stand in each of them."""
    await bench.reopen(get_max=4)
    a = await bench.user()
    data = PNG + b"xy"
    path = await bench.save(a, data)
    first = await bench.get(a, path)
    assert first == FileOut(
        base64.b64encode(data[:4]).decode(), 10, hashlib.md5(data).hexdigest(), "image/png"
    )
    pieces = [await bench.get(a, path, offset=offset, length=3) for offset in range(0, 12, 3)[:4]]
    assert b"".join(base64.b64decode(piece.content) for piece in pieces) == data
    assert (await bench.get(a, path, offset=10)).content == ""
    await refused(Status.BAD_FIELD, bench.get(a, path, offset=11), "offset")
    for length in (0, 5, 2**31):
        await refused(Status.BAD_FIELD, bench.get(a, path, length=length), "length")
    await refused(Status.BAD_FIELD, bench.get(a, ""), "path")


@on_both_loops
async def test_a_file_that_is_swept_while_it_is_read(bench: Bench) -> None:
    """Its reader gets 4005, not an internal error."""
    a = await bench.user()
    path = await bench.save(a, b"hello")
    read = bench.media.read

    async def late(*args: Any) -> str:
        os.unlink(bench.folder / path)
        return await read(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.media, "read", late)
        assert not await bench.may_read(a, path)


@pytest.mark.parametrize(
    ("setting", "value", "line"),
    [
        ("media.inline_max", "16777217", "is more than media.part_max (16777216, default)"),
        ("media.part_max", "1073741825", "is more than media.quota_bytes (1073741824, default)"),
        ("media.inline_max", "800000", "needs limits.line of 1070764 (1048576, default)"),
        ("media.get_max", "1000000", "needs limits.reply of 1337432 (1048576, default)"),
        ("limits.line", "900000", "is less than 959832 for media.inline_max (716800)"),
    ],
)
def test_settings_of_files_fit_together(setting: str, value: str, line: str) -> None:
    """A file that no line could hold, or no quota, is told at the start."""
    variable = f"PUSHD_{setting.upper().replace('.', '_')}"
    with pytest.raises(ConfigError) as caught:
        load("/dev/null", {}, {variable: value})
    assert any(setting in each and line in each for each in caught.value.lines), caught.value.lines


def test_a_thumbnail_has_the_turn_of_its_picture() -> None:
    """Saving and sweeping hold one turn for both."""
    name = hashlib.sha256(b"x").hexdigest()
    path = f"media/{name[:2]}/{name}"
    assert key_of(f"{path}.png") == key_of(f"{path}-256.jpg") == name
