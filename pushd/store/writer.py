"""Group commit: one task takes all that waits, one transaction, one sync, then tells everybody.

An operation is applied in the writer's thread and finished on the loop: first its deliveries go
to the live sessions, then whoever waits is told, operation by operation in commit order. So
nothing is confirmed or delivered before it is durable, and a device that registers in `finish`
misses nothing that is committed after it.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import structlog

from ..clock import Clock
from ..draft import Draft
from ..errors import PushdError, Refusal, StoreFailed
from ..histogram import SECONDS, SIZES, Histogram
from ..model import Accepted, Actor, Delivery, Failed
from ..status import Status
from .engine import Worker
from .journal import Busy, Journal, Operation
from .lines import Lines
from .posting import post_list

log = structlog.get_logger("pushd.store")

R = TypeVar("R")

NO_CHATS: frozenset[str] = frozenset()

# What a batch's deliveries and signals are handed to, on the loop.
Deliver = Callable[[list[Delivery], list[Any]], None]


class Post:
    """Message lists of one sender; each is stored whole or not at all."""

    __slots__ = (
        "actor",
        "chats",
        "client_keys",
        "committed",
        "deliveries",
        "done",
        "error",
        "grows",
        "lists",
        "results",
        "sender",
        "signals",
        "slot",
        "tags",
        "weight",
        "wide",
    )

    def __init__(self, actor: Actor, done: Callable[["Post"], None]) -> None:
        self.actor = actor
        self.done = done  # called once the outcome is durable
        self.committed = 0  # lists whose outcome is durable
        self.lists: list[Sequence[Draft | Failed]] = []
        self.tags: list[Any] = []  # one for each list, the caller's
        self.slot: Any = None  # the caller's
        self.results: list[list[Accepted] | list[Failed]] = []  # one for each list
        self.client_keys: list[int] = []  # by which earlier messages are found
        self.sender = actor.account
        self.chats: frozenset[str] = NO_CHATS  # what its messages name that may be groups
        self.wide = False
        self.deliveries: list[Delivery] = []
        self.signals: list[Any] = []
        self.error: BaseException | None = None
        self.grows = True
        self.weight = 0  # messages

    def add(self, drafts: Sequence[Draft | Failed], tag: Any = None) -> None:
        """Add one list."""
        self.lists.append(drafts)
        self.tags.append(tag)
        self.weight += len(drafts)
        for draft in drafts:
            if isinstance(draft, Draft):
                if draft.client_key:
                    self.client_keys.append(draft.client_key)
                if draft.chat:
                    self.chats = self.chats.union(draft.chat)

    def apply(self, journal: Journal) -> bool:
        """Store every list, or note why it is refused; False when the batch is large enough."""
        actor = self.actor
        results = self.results
        del results[self.committed :]
        for drafts in self.lists[self.committed :]:
            if journal.full_batch:
                return False
            # Each list asks again: a list before it may have changed what holds.
            sender = journal.box_of(actor)
            if sender is None:
                refused = Refusal(Status.ERROR_NET)
                results.append([Failed(0, int(refused.status), refused.message)])
            else:
                results.append(post_list(journal, sender, actor.device, drafts))
        return True

    @property
    def lately(self) -> int:
        """How many lists its deliveries are of."""
        return len(self.results) - self.committed

    def advance(self) -> None:
        """Note that the lists that have results are committed."""
        self.committed = len(self.results)

    def finish(self) -> None:
        """Tell the connection; what failed takes nothing back that was committed before it."""
        if self.error is not None and self.committed:
            problem = self.error if isinstance(self.error, Refusal) else Refusal(Status.INTERNAL)
            if problem is not self.error:
                log.error("the rest of a unit failed", exc_info=self.error)
            failed = Failed(0, int(problem.status), problem.message)
            left = len(self.lists) - self.committed
            self.results[self.committed :] = [[failed] for _ in range(left)]
            self.error = None
        self.done(self)


class Verb(Generic[R]):
    """One change of the store; `function` runs in the transaction and checks before it writes."""

    chats = NO_CHATS
    lately = 1
    sender = 0  # it stands in no order with the posts of its account
    wide = False

    __slots__ = (
        "actor",
        "deliveries",
        "error",
        "function",
        "future",
        "grows",
        "result",
        "signals",
        "then",
        "weight",
    )

    def __init__(
        self,
        function: Callable[[Journal], R],
        *,
        actor: Actor | None = None,
        grows: bool = True,
        then: Callable[[R], None] | None = None,
    ) -> None:
        self.function = function
        self.actor = actor
        self.grows = grows
        self.then = then  # called on the loop, in commit order, before anybody waiting goes on
        self.future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self.result: Any = None
        self.deliveries: list[Delivery] = []
        self.signals: list[Any] = []
        self.error: BaseException | None = None
        self.weight = 1

    def advance(self) -> None:
        """Do nothing: a change is applied whole."""

    def apply(self, journal: Journal) -> bool:
        """Run the change; a refusal undoes what it wrote."""
        journal.flush()
        journal.db.execute("SAVEPOINT verb")
        try:
            if self.actor is not None:
                journal.check(self.actor)
            self.result = self.function(journal)
        except Refusal as problem:
            # Queues that moved cannot be moved back: that verb wrote before it had checked.
            assert not self.deliveries, "a verb refused after it had delivered"
            journal.db.execute("ROLLBACK TO verb")
            self.error = problem
        journal.db.execute("RELEASE verb")
        return True

    def finish(self) -> None:
        """Tell whoever waits; a waiter that has gone does not matter."""
        if self.error is not None:
            if not self.future.done():
                self.future.set_exception(self.error)
            return
        try:
            if self.then is not None:
                self.then(self.result)
        except Exception as bug:
            # It ends this request, not the writer.
            self.future.set_exception(bug)
            return
        if not self.future.done():
            self.future.set_result(self.result)


class Writer:
    """The one task that changes the store."""

    def __init__(
        self,
        worker: Worker,
        journal: Journal,
        clock: Clock,
    ) -> None:
        self.deliver: Deliver = lambda deliveries, signals: None
        self.waiting = 0  # messages and verbs that are not committed yet
        self.batches = 0  # committed so far
        self.sizes = Histogram(SIZES)  # messages and verbs of a batch
        self.times = Histogram(SECONDS)  # of a batch, from the loop and back to it
        self.full = False  # the disk is full
        self.failed: StoreFailed | None = None  # why nothing is committed any more
        self._worker = worker
        # What the thread writes with; its counters may be read from anywhere.
        self.journal = journal
        self._clock = clock
        # Settings, which the store keeps up to date, as it does `lines.batch_rows`
        self.busy_seconds = 10.0  # to wait for the database's lock
        self.ack_seconds = 0.05  # that acks wait at most for other work to commit with
        self.queue_limit = 65536  # messages and verbs that wait, beyond which it is saturated
        self.lines = Lines()
        self._acks: dict[int, tuple[int, int]] = {}
        self._acks_timed = False  # they are due at a set time
        self._acks_due = False  # they are committed now, also without other work
        self._wake = asyncio.Event()
        self._stopping = False

    @property
    def saturated(self) -> bool:
        """True when so much waits that connections should hand in no more."""
        return self.waiting >= self.queue_limit

    def submit(self, operation: Operation) -> None:
        """Hand in an operation; it is committed after all that were handed in before."""
        if self.failed is not None or self._stopping:
            operation.error = Refusal(Status.RESTARTING, retry_after=3)
            operation.finish()
            return
        self.lines.add(operation)
        self.waiting += operation.weight
        self._wake.set()

    def ack(self, device: int, seq: int, message: int) -> None:
        """Note that a device has acked up to `seq`; committed with the next batch.

        Nobody waits for it, so that it alone makes a batch only after `ack_seconds`.
        """
        known = self._acks.get(device)
        if known is None or known[0] < seq:
            self._acks[device] = (seq, message)
            if not self._acks_timed:
                self._acks_timed = True
                asyncio.get_running_loop().call_later(self.ack_seconds, self._commit_acks)

    def _commit_acks(self) -> None:
        self._acks_timed = False
        if self._acks:
            self._acks_due = True
            self._wake.set()

    def forget_ack(self, device: int) -> None:
        """Drop an ack that no batch has taken yet; the device will be asked for it again."""
        self._acks.pop(device, None)

    async def barrier(self, device: int = 0) -> None:
        """Wait until the acks and verbs that were handed in are committed.

        Raises Refusal 4007 while the acks of that device do not fit on the disk.
        """
        await self.call(lambda journal: journal.check_acks(device), grows=False)

    async def call(
        self,
        function: Callable[[Journal], R],
        *,
        actor: Actor | None = None,
        grows: bool = True,
        then: Callable[[R], None] | None = None,
    ) -> R:
        """Commit one change and give its result; raises what it raises."""
        verb = Verb(function, actor=actor, grows=grows, then=then)
        self.submit(verb)
        # Cancelling the waiter does not cancel the change.
        try:
            return await asyncio.shield(verb.future)
        except asyncio.CancelledError:
            # That it fails, if it does, is no news to anybody.
            verb.future.add_done_callback(asyncio.Future.exception)
            raise

    async def run(self) -> None:
        """Commit until `stop`; raises StoreFailed when the store cannot be trusted any more."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self.lines or self._acks_due or (self._stopping and self._acks):
                acks, self._acks, self._acks_due = self._acks, {}, False
                await self._commit(acks, self.lines.take())
            if self._stopping:
                return

    def stop(self) -> None:
        """Commit what waits, then end `run`; what comes later is refused."""
        self._stopping = True
        self._wake.set()

    async def _commit(self, acks: dict[int, tuple[int, int]], batch: list[Operation]) -> None:
        begin = self._clock.now()
        deadline = begin + self.busy_seconds
        while True:
            try:
                finished = await self._worker.run(self._in_thread, acks, batch)
                break
            except Busy:
                if self._clock.now() < deadline and not self._stopping:
                    continue
                # A store that stops does not wait for others: such acks are asked for again.
                for device, (seq, message) in () if self._stopping else acks.items():
                    self.ack(device, seq, message)
                for operation in batch:
                    operation.error = Refusal(Status.RESTARTING, "the store is busy", retry_after=3)
                finished = len(batch)
                break
            except StoreFailed as problem:
                self._fail(problem, batch)
                raise
        self.batches += 1
        self.times.add(self._clock.now() - begin)
        self.sizes.add(sum(operation.weight for operation in batch[:finished]))
        self._tell_space()
        self._finish(batch[:finished])
        if finished < len(batch):
            self._put_back(batch[finished:])

    def _in_thread(
        self, _: object, acks: dict[int, tuple[int, int]], batch: list[Operation]
    ) -> int:
        return self.journal.commit(acks, batch)

    def _finish(self, batch: list[Operation]) -> None:
        for operation in batch:
            self.waiting -= operation.weight
            self.lines.finished(operation)
            if operation.error is None and (operation.deliveries or operation.signals):
                self.deliver(operation.deliveries, operation.signals)
            operation.finish()

    def _tell_space(self) -> None:
        """Log once when the disk is full, and once when it has space again."""
        full = self.journal.reserve.spent
        if full and not self.full:
            log.error("the disk is full: nothing more is accepted until there is space")
        elif self.full and not full:
            log.info("the disk has space again")
        self.full = full

    def _put_back(self, rest: list[Operation]) -> None:
        """Commit the rest of a batch next; what is committed of its first one is delivered now."""
        self.lines.put_back(rest)
        first = rest[0]
        self.deliver(first.deliveries, first.signals)
        first.deliveries, first.signals = [], []
        first.advance()

    def _fail(self, problem: StoreFailed, batch: list[Operation]) -> None:
        self.failed = problem
        for operation in (*batch, *self.lines.drain()):
            operation.error = Refusal(Status.RESTARTING, retry_after=3)
            operation.finish()


__all__ = ["Post", "PushdError", "Verb", "Writer"]
