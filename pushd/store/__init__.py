"""The store: what people confirm to each other lives here, and nowhere else.

    engine    the file, its lock, migrations, and the threads that talk to it
    wal       whether the log was whole when it was opened
    newest    whether the store still has all that was confirmed
    journal   the write side in its thread: operations in commit order, caches, batches
    writer    group commit on the loop: batches in, outcomes out
    posting   message lists: rights, repeats, queues
    noun      how functions on a connection become verbs
    accounts, devices, friends, messages, groups, files, lifecycle, retention    the verbs
    live      a copy of it while it is written
    copy, check    a store that is closed; what a whole one looks like
    audit, overview, tracing, mailing    the operator's verbs
    marks     when devices acked and people read, for tracing

The interface is verbs of the domain (`store.friends.accept(…)`); SQL stays inside.
"""

import asyncio
import secrets
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..clock import Clock, Dates
from ..config import Config
from ..errors import StoreFailed, StoreRefused
from ..folders import make_folder
from ..model import Actor
from .accounts import Accounts
from .audit import Audit
from .devices import Devices
from .engine import (
    FILE,
    RESTORING,
    Lock,
    Worker,
    advice,
    database_size,
    open_reader,
    open_writer,
    tend_log,
)
from .files import Files
from .friends import Friends
from .groups import GroupVerbs
from .health import Health
from .journal import Journal
from .lifecycle import Lifecycle
from .live import copy_live
from .mailing import Mailings
from .messages import Messages
from .newest import Newest
from .overview import Overview
from .reserve import Reserve
from .retention import Retention
from .tracing import Tracing
from .writer import Deliver, Post, Verb, Writer


class Store:
    """An open store; make one with `Store.open`."""

    def __init__(
        self,
        folder: Path,
        lock: Lock,
        writer: Writer,
        workers: tuple[Worker, ...],
        nouns: tuple[Accounts, Devices, Friends, Messages, GroupVerbs, Lifecycle],
        files: Files,
        health: Health,
        audit: Audit,
        overview: Overview,
        retention: Retention,
        tracing: Tracing,
        mailings: Mailings,
    ) -> None:
        self.folder = folder
        self.accounts, self.devices, self.friends, self.messages, self.groups, self.lifecycle = (
            nouns
        )
        self.files = files
        self.health = health
        self.audit = audit
        self.overview = overview
        self.retention = retention
        self.tracing = tracing
        self.mailings = mailings
        self.writer = writer
        self._lock = lock
        self._workers = workers  # the writer's connection first
        self._log_bytes = 0  # set by `configure`, as all settings are
        self._task: asyncio.Task[None] | None = None
        self._left: dict[int, int] = {}  # devices that have gone and are not handed in, by account
        self._noting = False  # others that have gone are handed in and not committed yet

    @classmethod
    async def open(cls, config: Config, clock: Clock, kind: type[Worker] = Worker) -> "Store":
        """Open the store of a data folder, made if there is none.

        A simulation hands in a `kind` of workers that have no threads.
        Raises StoreRefused in one line: locked by another server, newer, or not a store.
        """
        folder = Path(config.server.data)
        lock = _lock(folder)
        workers: list[Worker] = []
        try:
            if (folder / RESTORING).exists():
                raise StoreRefused(
                    f"{folder}: a restore did not end here: remove this folder, then restore again"
                )
            return await cls._open(folder, lock, workers, config, clock, kind)
        except BaseException as problem:
            for worker in workers:
                await worker.close()
            lock.release()
            if isinstance(problem, sqlite3.Error):
                # Damage that shows only when the first rows are read.
                raise StoreRefused(f"{folder / FILE}: {advice(problem)}") from None
            raise

    @classmethod
    async def _open(
        cls,
        folder: Path,
        lock: Lock,
        workers: list[Worker],
        config: Config,
        clock: Clock,
        kind: type[Worker],
    ) -> "Store":
        settings = config.store
        writing = await open_writer(
            folder,
            checkpoint_pages=settings.checkpoint_pages,
            log_bytes=settings.log_bytes,
            cache_bytes=settings.cache_bytes,
            kind=kind,
        )
        workers.append(writing)
        for _ in range(settings.readers):
            workers.append(await open_reader(folder, {}, kind=kind))
        dates = Dates(config.server.zone)
        reserve = Reserve(folder / "reserve", settings.reserve, clock.now)
        reserve.refill()
        journal = Journal(
            clock,
            dates,
            reserve,
            Newest(folder),
            cache=settings.cache_accounts,
            pairs=settings.cache_pairs,
            young_rows=settings.young_rows,
            young_chats=settings.young_chats,
            young_client_ids=settings.young_client_ids,
            trace=config.trace,
        )
        epoch = await workers[0].run(_prepare, journal)
        writer = Writer(workers[0], journal, clock)
        parts = (writer, tuple(workers[1:]), clock, dates)
        nouns = (
            Accounts(*parts),
            Devices(*parts),
            Friends(*parts),
            Messages(*parts),
            GroupVerbs(*parts),
            Lifecycle(*parts),
        )
        nouns[1].epoch = epoch
        files, audit, overview = Files(*parts), Audit(*parts), Overview(*parts)
        overview.folder = folder
        tracing, mailings = Tracing(*parts), Mailings(*parts)
        tracing.settings, tracing.commits = config.trace, journal.marks.commits
        operators = (audit, overview, Retention(*parts), tracing, mailings)
        extra = (files, Health(*parts), *operators)
        store = cls(folder, lock, writer, tuple(workers), nouns, *extra)
        store.configure(config)
        return store

    def configure(self, config: Config) -> None:
        """Take over the settings that may change while the store is open.

        Each is one value, so that the writer's thread sees the old one or the new one.
        """
        limits, writer = config.limits, self.writer
        journal = writer.journal
        journal.queue_limit = config.queue.messages
        journal.client_id_ms = limits.client_id_days * 86_400_000
        journal.most_friends = limits.friends
        journal.strangers = config.auth.strangers == "allow"
        journal.batch_rows = writer.lines.batch_rows = config.store.batch_rows
        writer.busy_seconds = config.store.busy_seconds
        writer.ack_seconds = config.store.ack_seconds
        writer.queue_limit = limits.commit_queue
        self._log_bytes = config.store.log_bytes
        self.groups.most_members = limits.group_members
        self.lifecycle.most_reports = limits.reports
        self.messages.reply_limit = max(limits.reply - 65536, limits.reply // 2)
        self.files.settings = config.media
        self.audit.settings = config.audit

    @property
    def epoch(self) -> str:
        """The random name of this store's history."""
        return self.devices.epoch

    def start(self, deliver: Deliver) -> "asyncio.Task[None]":
        """Start committing; the task ends with StoreFailed when the store cannot be trusted."""
        self.writer.deliver = deliver
        self._task = asyncio.get_running_loop().create_task(self.writer.run(), name="writer")
        return self._task

    def post(self, operation: Post) -> None:
        """Hand in message lists; the operation tells its outcome."""
        self.writer.submit(operation)

    def ack(self, actor: Actor, seq: int, message: int) -> None:
        """Note what a device has acked; committed with the next batch."""
        self.writer.ack(actor.device, seq, message)

    def forget_ack(self, actor: Actor) -> None:
        """Drop an ack of a device that is not handed to a batch yet."""
        self.writer.forget_ack(actor.device)

    def seen(self, actor: Actor) -> None:
        """Note that a device was connected until now; nobody waits for it.

        Who goes while such notes wait for their commit is noted in the next one, all at once.
        """
        self._left[actor.device] = actor.account
        if not self._noting:
            self.hand_in_seen()

    def hand_in_seen(self) -> None:
        """Have all who have gone noted before what is handed in from now on."""
        if not self._left:
            return
        noun, left = self.devices, self._left
        self._left = {}

        def noted(_: object) -> None:
            self._noting = False
            self.hand_in_seen()

        self._noting = True
        self._unwaited(lambda journal: noun.note_seen(journal, left)).add_done_callback(noted)

    def prove(self, actor: Actor) -> None:
        """Note that a device's client knows its pushId; nobody waits for it."""
        noun = self.devices
        self._unwaited(lambda journal: noun.note_proven(journal, actor.device))

    def discard(self, actor: Actor) -> None:
        """End a device that nobody got to know; nobody waits for it."""
        noun = self.devices
        self._unwaited(lambda journal: noun.drop(journal, actor.account, actor.device))

    def _unwaited(self, change: Callable[[Journal], None]) -> asyncio.Future[None]:
        verb = Verb(change, grows=False)
        # When it cannot be done, all stays as it was.
        verb.future.add_done_callback(asyncio.Future.exception)
        self.writer.submit(verb)
        return verb.future

    async def tend_log(self) -> int:
        """Keep the write-ahead log small; gives its size in bytes while a reader prevents that."""
        return await self._workers[0].run(tend_log, self.folder, self._log_bytes)

    async def size(self) -> int:
        """Give the bytes of the database, without its log."""
        return await self._workers[-1].run(database_size)

    async def copy(self, target: Path, advance: Callable[[int], None]) -> None:
        """Copy the store as it is in one moment to a new file, while it goes on.

        `advance` is called in a thread with the bytes copied since its last call; it may raise to
        end the copy. The store must stay open until then. Raises StoreRefused, OSError.
        """
        await copy_live(self._workers[0], target, advance)

    async def close(self) -> None:
        """Commit what waits and close; a store that failed is only closed."""
        self.hand_in_seen()
        self.writer.stop()
        try:
            if self._task is not None:
                await asyncio.wait([self._task])
                failed = self._task.exception()
                if failed is not None and not isinstance(failed, StoreFailed):
                    raise failed
        finally:
            for worker in reversed(self._workers):
                await worker.close()
            self.writer.journal.newest.close()
            self._lock.release()


def _lock(folder: Path) -> Lock:
    try:
        make_folder(folder)
        return Lock(folder)
    except OSError as problem:
        raise StoreRefused(f"{folder}: cannot be used: {problem.strerror}") from None


def _prepare(db: sqlite3.Connection, journal: Journal) -> str:
    """Let the journal take over, and give the epoch, made when the store is new."""
    journal.open(db)
    found: Any = db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
    if found is None:
        found = (secrets.token_urlsafe(9),)
        db.execute("INSERT INTO meta VALUES ('epoch', ?)", found)
    return str(found[0])


__all__ = ["FILE", "Post", "Store"]
