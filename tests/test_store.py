"""The store in process, on both loops, with a clock that only moves when a test moves it.

`Bench` is a store with a few verbs of its own: it makes users, pairs of friends and devices, sends
texts and reads queues as a connection would. What the hub would get lies in `deliveries` and
`signals`.
"""

import asyncio
import functools
import gc
import json
import random
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import uvloop

from pushd.clock import Clock
from pushd.config import Config, Limits, Queue, Server
from pushd.config import Store as StoreConfig
from pushd.draft import drafts
from pushd.errors import Refusal, StoreRefused
from pushd.model import MAX_INT, Accepted, Actor, Bound, Delivery, Failed, InfoIn, MessageIn
from pushd.status import Status
from pushd.store import FILE, Store
from pushd.store.journal import DELETE_RANGE, Journal
from pushd.store.messages import key_for
from pushd.store.writer import Post, Verb

DAY = 86_400_000  # in ms
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
NO_LIMIT = 1 << 40
# Young parts that are swept at every turn.
SMALL = StoreConfig(reserve=0, readers=1, young_rows=3, young_chats=3, young_client_ids=3)


class TestClock(Clock):
    """A clock that stands still."""

    __test__ = False

    def __init__(self) -> None:
        self.monotonic = 1000.0
        self.ms = 1_700_000_000_000

    def now(self) -> float:
        """Give monotonic seconds."""
        return self.monotonic

    def wall(self) -> int:
        """Give milliseconds since 1970."""
        return self.ms


class Bench:
    """An open store and what its users do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = TestClock()
        self.deliveries: list[Delivery] = []
        self.signals: list[Any] = []
        self.store: Store
        self._phones = iter(range(13_800_000_000, 13_900_000_000))
        self._sections: dict[str, Any] = {}

    async def open(self, **sections: Any) -> None:
        """Open the store, after closing it, with changed sections of the settings."""
        self._sections |= sections
        settings = {"store": SMALL, **self._sections}
        config = Config(server=Server(data=str(self.folder)), **settings)
        self.store = await Store.open(config, self.clock)
        self.store.start(self._deliver)

    def _deliver(self, deliveries: list[Delivery], signals: list[Any]) -> None:
        self.deliveries += deliveries
        self.signals += signals

    async def reopen(self, **sections: Any) -> None:
        """Close the store and open it again."""
        await self.store.close()
        await self.open(**sections)

    @property
    def journal(self) -> Journal:
        """The writer's side; look at it only while nothing is being committed."""
        return self.store.writer.journal

    def sql(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Read the database on a connection of one's own: what is committed, and no more."""
        with closing(sqlite3.connect(self.folder / FILE)) as db:
            return db.execute(query, values).fetchall()

    def damage(self, change: str) -> None:
        """Change the database behind the store's back."""
        with closing(sqlite3.connect(self.folder / FILE)) as db, db:
            assert db.execute(change).rowcount

    # --- people and devices ---------------------------------------------------------------

    async def user(self, username: str = "") -> Actor:
        """Register somebody; the login has no device."""
        account = await self.store.accounts.register(str(next(self._phones)), b"hash", username)
        return Actor(account.id, 0, account.generation)

    async def bind(self, actor: Actor, *, most: int = 10, online: tuple[int, ...] = ()) -> Bound:
        """Make a device for a login."""
        token = f"token {actor.account} {self.clock.ms} {random.random()}".encode()
        return await self.store.devices.create(
            actor, token, "", most=most, online=online, answering=online, then=lambda bound: None
        )

    async def befriend(self, one: Actor, other: Actor) -> None:
        """Make two people friends."""
        await self.store.friends.ask(one, other.account, "")
        await self.store.friends.accept(other, one.account)

    async def friends(self) -> tuple[Actor, Actor]:
        """Make two friends with a device each, and empty queues."""
        one, other = await self.user(), await self.user()
        await self.befriend(one, other)
        one, other = (await self.bind(one)).actor, (await self.bind(other)).actor
        for actor in (one, other):
            await self.ack(actor, 1)
        self.deliveries.clear()
        self.signals.clear()
        return one, other

    # --- messages -------------------------------------------------------------------------

    def post(self, actor: Actor, to: Actor, *texts: str, **fields: Any) -> "asyncio.Future[Post]":
        """Hand in one list and go on; the future has its outcome."""
        future: asyncio.Future[Post] = asyncio.get_running_loop().create_future()
        messages = [
            MessageIn(to_id=str(to.account), type="1", info=InfoIn("0", text), **fields)
            for text in texts
        ]
        operation = Post(actor, future.set_result)
        operation.add(drafts(messages, actor.account, Limits()))
        self.store.post(operation)
        return future

    async def send(self, actor: Actor, to: Actor, *texts: str, **fields: Any) -> list[int]:
        """Send a list that must be accepted; gives its msgIds."""
        [results] = (await self.post(actor, to, *texts, **fields)).results
        assert all(isinstance(one, Accepted) for one in results), results
        return [one.msg_id for one in cast(list[Accepted], results)]

    async def refused(self, actor: Actor, to: Actor, text: str, **fields: Any) -> int:
        """Send a message that must be refused; gives the status."""
        [[failed]] = (await self.post(actor, to, text, **fields)).results
        assert isinstance(failed, Failed)
        return failed.status

    async def ack(self, actor: Actor, seq: int) -> None:
        """Ack all up to a seq, and wait until it is committed."""
        rows = self.sql(
            "SELECT max(message) FROM queue WHERE device = ? AND seq <= ?", actor.device, seq
        )
        self.store.ack(actor, seq, rows[0][0] or 0)
        await self.store.writer.barrier()

    async def page(
        self, actor: Actor, after: int = 0, count: int = 10_000, size: int = NO_LIMIT
    ) -> list[dict[str, Any]]:
        """Read what is behind a seq, up to all there is, as a connection does."""
        [[upto]] = self.sql("SELECT last FROM position WHERE device = ?", actor.device)
        entries = await self.store.messages.page(
            actor.device, actor.account, after, upto, count, size
        )
        return [msgspec.json.decode(entry[2]) for entry in entries]

    async def waiting(self, actor: Actor) -> list[dict[str, Any]]:
        """Read all that a device has not acked."""
        [[acked]] = self.sql("SELECT acked FROM position WHERE device = ?", actor.device)
        return await self.page(actor, acked)

    async def history(self, viewer: Actor, peer: Actor) -> list[dict[str, Any]]:
        """Read the newest 100 messages between two people, but for the request of friendship."""
        key = key_for(viewer.account, "", peer.account)
        items, _ = await self.store.messages.history(viewer.account, key, MAX_INT, -1, 100)
        messages = [json.loads(item) for item in items]
        return [message for message in messages if message["type"] != "2"]

    async def found(self, viewer: Actor, text: str) -> list[int]:
        """Search a text; gives the msgIds."""
        items, _ = await self.store.messages.search(viewer.account, text, "", MAX_INT, 0, 100)
        return [int(json.loads(item)["msgId"]) for item in items]


def on_both_loops(
    test: Callable[[Bench], Awaitable[None]],
) -> Callable[[str, Path], None]:
    """Run a test of a bench on asyncio's own loop and on uvloop."""

    async def with_bench(folder: Path) -> None:
        bench = Bench(folder)
        await bench.open()
        try:
            await test(bench)
        finally:
            await bench.store.close()

    @pytest.mark.parametrize("loop", LOOPS)
    def run(loop: str, tmp_path: Path) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(with_bench(tmp_path / "data"))

    functools.update_wrapper(run, test)
    del run.__dict__["__wrapped__"]  # pytest would ask for the test's own arguments
    return run


def texts(messages: list[dict[str, Any]]) -> list[str]:
    return [message["info"][0]["content"] for message in messages]


def seqs(messages: list[dict[str, Any]]) -> list[int]:
    return [message["seq"] for message in messages]


def ids(messages: list[dict[str, Any]]) -> list[int]:
    return [int(message["msgId"]) for message in messages]


def status_of(refusal: pytest.ExceptionInfo[Refusal]) -> Status:
    return refusal.value.status


# --- group commit -----------------------------------------------------------------------------


@on_both_loops
async def test_what_waits_is_one_commit_and_told_in_order(bench: Bench) -> None:
    """All that is handed in together is one batch; outcomes come in the order of handing in."""
    a, b = await bench.friends()
    batches = bench.store.writer.batches
    told: list[object] = []
    futures: list[asyncio.Future[Any]] = []
    for number in range(3):
        post = bench.post(a, b, f"{number} one", f"{number} two")
        verb = Verb(lambda journal, number=number: number)  # type: ignore[misc]
        bench.store.writer.submit(verb)
        futures += (post, verb.future)
    for future in futures:
        future.add_done_callback(lambda done: told.append(done))
    await asyncio.gather(*futures)
    assert told == futures
    assert bench.store.writer.batches == batches + 1
    numbers = [one.msg_id for post in futures[::2] for one in post.result().results[0]]
    assert numbers == sorted(numbers)
    assert [entry[2] for entry in bench.deliveries] == numbers


@on_both_loops
async def test_nothing_is_told_before_it_is_committed(bench: Bench) -> None:
    """When a delivery reaches the hub, another connection finds the message in the database."""
    a, b = await bench.friends()
    seen: list[tuple[int, int]] = []
    told: list[str] = []

    def deliver(deliveries: list[Delivery], signals: list[Any]) -> None:
        [[count]] = bench.sql("SELECT count(*) FROM message WHERE text = 'x'")
        seen.append((len(deliveries), count))
        told.append("delivered")

    bench.store.writer.deliver = deliver
    post = bench.post(a, b, "x")
    post.add_done_callback(lambda _: told.append("answered"))
    await post
    await asyncio.sleep(0)
    assert seen == [(1, 1)]
    assert told == ["delivered", "answered"]


@on_both_loops
async def test_a_long_line_of_operations_is_cut_into_batches(bench: Bench) -> None:
    """One commit holds `batch_rows` messages and no more, and all of them are committed."""
    await bench.reopen(store=StoreConfig(reserve=0, readers=1, batch_rows=10))
    a, b = await bench.friends()
    batches = bench.store.writer.batches
    await asyncio.gather(*(bench.post(a, b, *"12345") for _ in range(6)))
    assert bench.store.writer.batches == batches + 3
    assert bench.store.writer.waiting == 0
    assert texts(await bench.waiting(b)) == list("12345") * 6


@on_both_loops
async def test_a_refusal_undoes_what_its_verb_wrote(bench: Bench) -> None:
    """A verb that refuses leaves no trace, and what shares its batch is kept."""
    a, b = await bench.friends()

    def change(journal: Journal) -> None:
        journal.db.execute("UPDATE account SET desc = 'changed' WHERE id = ?", (a.account,))
        raise Refusal(Status.NOT_ALLOWED)

    before, verb, after = bench.post(a, b, "before"), Verb(change), bench.post(a, b, "after")
    bench.store.writer.submit(verb)
    with pytest.raises(Refusal):
        await verb.future
    await asyncio.gather(before, after)
    assert bench.sql("SELECT desc FROM account WHERE id = ?", a.account) == [("",)]
    assert texts(await bench.waiting(b)) == ["before", "after"]


def _bug(journal: Journal) -> None:
    journal.db.execute("UPDATE account SET desc = 'changed'")
    raise ZeroDivisionError


def _bad_sql(journal: Journal) -> None:
    journal.db.execute("UPDATE account SET desc = 'changed'")
    journal.db.execute("INSERT INTO nowhere VALUES (1)")


async def _fail_among_others(bench: Bench, bad: Callable[[Journal], None], error: type) -> None:
    a, b = await bench.friends()
    before, verb = bench.post(a, b, "before", client_id="c1"), Verb(bad)
    bench.store.writer.submit(verb)
    after = bench.post(a, b, "after")
    with pytest.raises(error):
        await verb.future
    await asyncio.gather(before, after)
    assert bench.sql("SELECT count(*) FROM account WHERE desc <> ''") == [(0,)]
    waiting = await bench.waiting(b)
    assert (texts(waiting), seqs(waiting)) == (["before", "after"], [2, 3])
    delivered = [entry[1:3] for entry in bench.deliveries]
    assert delivered == list(zip(seqs(waiting), ids(waiting), strict=True))


@on_both_loops
async def test_a_bug_in_one_verb_fails_only_that_one(bench: Bench) -> None:
    """After an exception the batch is done again singly: the others once, the bad one never."""
    await _fail_among_others(bench, _bug, ZeroDivisionError)


@on_both_loops
async def test_bad_sql_in_one_verb_fails_only_that_one(bench: Bench) -> None:
    """An error of the database that is the verb's own fault is such a bug as well."""
    await _fail_among_others(bench, _bad_sql, sqlite3.OperationalError)


@on_both_loops
async def test_a_cancelled_waiter_does_not_cancel_the_change(bench: Bench) -> None:
    """Whoever stops waiting does not know the outcome; the store has it."""
    a, _ = await bench.friends()
    task = asyncio.create_task(bench.store.accounts.complete(a, None, {"desc": "kept"}))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await bench.store.writer.barrier()
    assert bench.sql("SELECT desc FROM account WHERE id = ?", a.account) == [("kept",)]


@on_both_loops
async def test_a_cancelled_waiter_does_not_hear_of_a_failure(bench: Bench) -> None:
    """A change that nobody waits for any more, and that fails, is no error of the program."""
    loop = asyncio.get_running_loop()
    unhandled: list[Any] = []
    loop.set_exception_handler(lambda _, context: unhandled.append(context))
    task = asyncio.create_task(bench.store.writer.call(_bug))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await bench.store.writer.barrier()
    gc.collect()
    assert unhandled == []


@on_both_loops
async def test_a_stopped_store_commits_what_waits_and_refuses_the_rest(bench: Bench) -> None:
    """Closing loses nothing that was handed in; what comes later gets 5030."""
    a, b = await bench.friends()
    first = bench.post(a, b, "in time")
    bench.store.writer.stop()
    late = await bench.post(a, b, "too late")
    assert isinstance(late.error, Refusal)
    assert late.error.status == Status.RESTARTING
    assert (await first).error is None
    await bench.reopen()
    assert texts(await bench.waiting(b)) == ["in time"]


@on_both_loops
async def test_two_stores_on_one_folder_are_refused(bench: Bench) -> None:
    """The folder belongs to the store that opened it, until that one is closed."""
    other = Bench(bench.folder)
    with pytest.raises(StoreRefused, match="another pushd"):
        await other.open()
    await bench.reopen()


# --- revoked logins ---------------------------------------------------------------------------


@on_both_loops
async def test_a_signed_out_device_can_do_nothing(bench: Bench) -> None:
    """From the next operation in commit order on a dead device is refused, messages and verbs."""
    a, b = await bench.friends()
    thief = (await bench.bind(Actor(a.account))).actor
    before = bench.post(thief, b, "before")
    gone = asyncio.create_task(bench.store.devices.sign_out(a, thief.device))
    await asyncio.sleep(0)
    after = bench.post(thief, b, "after")
    [[failed]] = (await after).results
    assert isinstance(failed, Failed)
    assert failed.status == Status.ERROR_NET
    await gone
    assert isinstance((await before).results[0][0], Accepted)
    with pytest.raises(Refusal) as refusal:
        await bench.store.accounts.complete(thief, None, {"desc": "x"})
    assert status_of(refusal) == Status.ERROR_NET
    assert texts(await bench.waiting(b)) == ["before"]
    assert ("signed_out", thief.device) in bench.signals


@on_both_loops
async def test_a_new_password_revokes_every_other_login(bench: Bench) -> None:
    """Other devices, and logins without a device, end; the caller's own go on."""
    a, b = await bench.friends()
    login = Actor(a.account, 0, a.generation)
    other = (await bench.bind(login)).actor
    kept = await bench.store.accounts.change_password(a, b"new")
    for revoked in (login, other):
        assert await bench.refused(revoked, b, "x") == Status.ERROR_NET
    await bench.send(kept, b, "mine")
    assert bench.signals == [("signed_out", other.device)]
    assert await bench.store.devices.of(a.account) != []


@on_both_loops
async def test_a_list_is_refused_behind_what_revokes_its_login(bench: Bench) -> None:
    """A login without a device is checked by its generation, also after a reopen."""
    a, b = await bench.friends()
    login = Actor(a.account, 0, a.generation)
    await bench.store.accounts.change_password(a, b"new")
    await bench.reopen()
    assert await bench.refused(login, b, "x") == Status.ERROR_NET
    await bench.send(Actor(a.account, 0, a.generation + 1), b, "x")


# --- seqs and msgIds --------------------------------------------------------------------------


@on_both_loops
async def test_seqs_go_on_where_they_were(bench: Bench) -> None:
    """seq has no hole over a reopen, also when the queue was emptied before."""
    a, b = await bench.friends()
    await bench.send(a, b, "1", "2")
    await bench.ack(b, 3)
    await bench.reopen()
    await bench.send(a, b, "3")
    assert seqs(await bench.waiting(b)) == [4]
    await bench.ack(b, 4)
    await bench.reopen()
    await bench.send(a, b, "4")
    assert seqs(await bench.waiting(b)) == [5]


@on_both_loops
async def test_msg_ids_are_never_used_again(bench: Bench) -> None:
    """msgIds rise over a reopen, also when the last one was given to a gap and no message."""
    await bench.reopen(queue=Queue(messages=2))
    a, b = await bench.friends()
    given = await bench.send(a, b, "1", "2")
    given += await bench.send(a, b, "into the gap")
    [[highest]] = bench.sql("SELECT max(message) FROM queue")
    [[stored]] = bench.sql("SELECT max(id) FROM message")
    assert highest > stored
    await bench.reopen()
    given += await bench.send(a, b, "in the gap as well")
    assert given == sorted(set(given))
    assert given[-1] > highest


@on_both_loops
async def test_device_numbers_are_never_used_again(bench: Bench) -> None:
    """A late ack or login of a dead device must never meet a new one of the same number."""
    a, b = await bench.friends()
    dead = (await bench.bind(Actor(a.account))).actor
    await bench.store.devices.logout(dead)
    fresh = (await bench.bind(Actor(b.account))).actor
    assert fresh.device > dead.device


@on_both_loops
async def test_all_devices_of_both_get_a_message_but_the_sending_one(bench: Bench) -> None:
    """Each device has its own seq; the sender's other devices get a copy with the clientId."""
    a, b = await bench.friends()
    a2, b2 = [(await bench.bind(Actor(one.account))).actor for one in (a, b)]
    [number] = await bench.send(a, b, "hi", client_id="c1")
    assert [ids(await bench.waiting(one)) for one in (a, a2, b, b2)] == [[], *[[number]] * 3]
    assert [seqs(await bench.waiting(one)) for one in (a2, b, b2)] == [[1], [2], [1]]
    assert (await bench.waiting(a2))[0]["clientId"] == "c1"
    assert "clientId" not in (await bench.waiting(b))[0]


@on_both_loops
async def test_a_page_is_bounded_in_count_and_bytes(bench: Bench) -> None:
    """A page ends after `count` messages, or behind the one that passes `size` bytes."""
    a, b = await bench.friends()
    await bench.send(a, b, *(str(number) for number in range(10)))
    assert seqs(await bench.page(b, 1, count=4)) == [2, 3, 4, 5]
    assert seqs(await bench.page(b, 1, size=1)) == [2]
    assert seqs(await bench.page(b, 1, size=300)) == [2, 3]


# --- acks -------------------------------------------------------------------------------------


@on_both_loops
async def test_acks_move_a_position_and_rows_go_in_ranges(bench: Bench) -> None:
    """Acked rows are removed once there are enough of them, and do not count before that."""
    a, b = await bench.friends()
    rows = "SELECT count(*) FROM queue WHERE device = ?"
    for _ in range(3):
        await bench.send(a, b, *(["x"] * 100))
    await bench.ack(b, DELETE_RANGE - 1)
    [[kept]] = bench.sql(rows, b.device)
    assert kept > 300
    bound = await bench.store.devices.bind(
        _token(bench, b), None, "", oldest=0, then=lambda bound: None
    )
    assert (bound.acked, bound.first, bound.last) == (DELETE_RANGE - 1, DELETE_RANGE, 301)
    assert bound.queued == 301 - (DELETE_RANGE - 1)
    await bench.ack(b, DELETE_RANGE)
    assert bench.sql(rows, b.device) == [(301 - DELETE_RANGE,)]
    await bench.ack(b, 301)
    await bench.reopen()
    assert await bench.waiting(b) == []


def _token(bench: Bench, actor: Actor) -> bytes:
    [[token]] = bench.sql("SELECT token FROM device WHERE id = ?", actor.device)
    return bytes(token)


@on_both_loops
async def test_an_ack_never_goes_back_nor_too_far(bench: Bench) -> None:
    """A lower ack changes nothing, one beyond the queue acks what there is."""
    a, b = await bench.friends()
    await bench.send(a, b, "1", "2", "3")
    await bench.ack(b, 3)
    await bench.ack(b, 2)
    assert texts(await bench.waiting(b)) == ["3"]
    await bench.ack(b, 99)
    await bench.send(a, b, "4")
    assert texts(await bench.waiting(b)) == ["4"]


@on_both_loops
async def test_an_ack_of_a_dead_device_is_ignored(bench: Bench) -> None:
    """An ack that comes behind the end of its device changes nothing."""
    a, b = await bench.friends()
    await bench.send(a, b, "1")
    await bench.store.devices.logout(b)
    await bench.ack(b, 2)
    assert bench.sql("SELECT device FROM position WHERE device = ?", b.device) == []


# --- full queues ------------------------------------------------------------------------------


@on_both_loops
async def test_a_full_queue_ends_in_a_gap_that_collects(bench: Bench) -> None:
    """The sender is never refused: one gap takes the next seq and names each chat once."""
    await bench.reopen(queue=Queue(messages=3))
    a, b = await bench.friends()
    c = (await bench.bind(await bench.user())).actor
    await bench.befriend(c, b)
    await bench.ack(b, 2)
    kept = await bench.send(a, b, "1", "2", "3")
    missed = await bench.send(a, b, "4", "5") + await bench.send(c, b, "6") + kept[:0]
    waiting = await bench.waiting(b)
    assert seqs(waiting) == [3, 4, 5, 6]
    gap = waiting[-1]["event"]
    assert (gap["name"], gap["seqFrom"], "more" in gap) == ("gap", 6, False)
    assert gap["chats"] == [
        {"chatId": f"{a.account}-{b.account}", "after": str(missed[0] - 1)},
        {"chatId": f"{b.account}-{c.account}", "after": str(missed[2] - 1)},
    ]
    for chat, one in zip(gap["chats"], (a, c), strict=True):
        items, _ = await bench.store.messages.history(
            b.account, chat["chatId"], 0, int(chat["after"]), 100
        )
        expected = missed[:2] if one is a else missed[2:]
        assert [int(json.loads(item)["msgId"]) for item in items] == expected


@on_both_loops
async def test_a_gap_that_was_read_collects_no_more(bench: Bench) -> None:
    """What comes after the reading of a gap is in another one: the read one said all it had."""
    await bench.reopen(queue=Queue(messages=1))
    a, b = await bench.friends()
    await bench.send(a, b, "1", "2")
    [_, read] = await bench.waiting(b)
    [later] = await bench.send(a, b, "3")
    [_, again, fresh] = await bench.waiting(b)
    assert again == read
    assert fresh["event"]["seqFrom"] == read["seq"] + 1
    assert fresh["event"]["chats"][0]["after"] == str(later - 1)


@on_both_loops
async def test_a_queue_with_room_takes_messages_behind_its_gap(bench: Bench) -> None:
    """Acks make room; the gap keeps its place, and a later one is a new one, over a reopen too."""
    await bench.reopen(queue=Queue(messages=2))
    a, b = await bench.friends()
    await bench.send(a, b, "1", "2", "3")
    await bench.reopen()
    await bench.send(a, b, "4")
    assert seqs(await bench.waiting(b)) == [2, 3, 4]
    await bench.ack(b, 4)
    await bench.send(a, b, "5", "6", "7")
    waiting = await bench.waiting(b)
    assert seqs(waiting) == [5, 6, 7]
    assert texts(waiting)[:2] == ["5", "6"]
    assert waiting[2]["event"]["seqFrom"] == 7


@on_both_loops
async def test_a_gap_names_a_hundred_chats_and_says_when_there_are_more(bench: Bench) -> None:
    """The chats of a gap are bounded; `more` tells that the client must look at all of them."""
    await bench.reopen(queue=Queue(messages=1))
    a, b = await bench.friends()
    await bench.send(a, b, "1")

    def fill(journal: Journal) -> None:
        box = journal.mailbox(b.account)
        assert box is not None
        for number in range(150):
            chat = journal.chat(f"{number}-{b.account}", "pair", (b.account,))
            message, rest = journal.store_message(chat, a.account, '"type":"1"', None)
            journal.deliver(box, chat, message, rest)

    await bench.store.writer.call(fill)
    gap = (await bench.waiting(b))[-1]["event"]
    assert len(gap["chats"]) == 100
    assert gap["more"] is True


# --- expiry -----------------------------------------------------------------------------------


@on_both_loops
async def test_what_waited_too_long_becomes_a_gap_over_its_seqs(bench: Bench) -> None:
    """Only the unacked front expires; the gap covers its seqs and says where to read on."""
    a, b = await bench.friends()
    old = await bench.send(a, b, "acked", "old 1", "old 2")
    await bench.ack(b, 2)
    bench.clock.ms += 31 * DAY
    await bench.send(a, b, "young")
    assert await bench.store.retention.expire_queues(bench.clock.ms - 30 * DAY, 10) == 1
    assert await bench.store.retention.expire_queues(bench.clock.ms - 30 * DAY, 10) == 0
    for _ in range(2):
        gap, young = await bench.waiting(b)
        assert (gap["seq"], young["seq"]) == (4, 5)
        assert gap["event"]["seqFrom"] == 3
        chat = {"chatId": f"{a.account}-{b.account}", "after": str(old[1] - 1)}
        assert gap["event"]["chats"] == [chat]
        await bench.reopen()
    bound = await bench.store.devices.bind(
        _token(bench, b), None, "", oldest=0, then=lambda bound: None
    )
    assert (bound.first, bound.last, bound.queued) == (3, 5, 2)
    await bench.ack(b, 4)
    assert texts(await bench.waiting(b)) == ["young"]
    assert texts(await bench.history(b, a)) == ["acked", "old 1", "old 2", "young"]


@on_both_loops
async def test_an_expired_front_that_is_half_acked_counts_right(bench: Bench) -> None:
    """A device that acks into the seqs of a gap is left with what is behind its ack."""
    await bench.reopen(queue=Queue(messages=4))
    a, b = await bench.friends()
    await bench.send(a, b, "1", "2", "3", "4")
    bench.clock.ms += 31 * DAY
    await bench.store.retention.expire_queues(bench.clock.ms - 30 * DAY, 10)
    # They were on their way when they expired.
    await bench.ack(b, 3)
    [gap] = await bench.waiting(b)
    assert (gap["seq"], gap["event"]["seqFrom"]) == (5, 4)
    await bench.send(a, b, "5", "6", "7", "8")
    waiting = await bench.waiting(b)
    assert seqs(waiting) == [5, 6, 7, 8, 9]
    assert waiting[-1]["event"]["name"] == "gap"


@on_both_loops
async def test_a_queue_that_is_acked_does_not_expire(bench: Bench) -> None:
    """Nothing is told of messages that the device has."""
    a, b = await bench.friends()
    await bench.send(a, b, "1")
    await bench.ack(b, 2)
    bench.clock.ms += 31 * DAY
    assert await bench.store.retention.expire_queues(bench.clock.ms, 10) == 0


@on_both_loops
async def test_messages_with_an_end_are_not_shown_after_it(bench: Bench) -> None:
    """A run of expired messages is one gap over all its seqs; history and search leave them out."""
    a, b = await bench.friends()
    await bench.send(a, b, "first")
    await bench.send(a, b, "brief 1", "brief 2", "brief 3", expire=60)
    await bench.send(a, b, "last")
    bench.clock.ms += 61_000
    waiting = await bench.waiting(b)
    assert [message["seq"] for message in waiting] == [2, 5, 6]
    assert waiting[1]["event"]["seqFrom"] == 3
    assert texts(await bench.history(b, a)) == ["first", "last"]
    assert await bench.found(b, "brief") == []


@on_both_loops
async def test_a_damaged_message_is_told_and_stops_nothing(bench: Bench) -> None:
    """What was not written so is never shown: a gap stands in the queue, words in the history."""
    a, b = await bench.friends()
    given = await bench.send(a, b, "first", "second", "third")
    for damage in ("x'ff'", "replace(body, 'second', 'secand')", "x''", "'{}'"):
        bench.damage(f"UPDATE message SET body = CAST({damage} AS TEXT) WHERE id = {given[1]}")
        bench.store.messages.damaged = 0
        waiting = await bench.waiting(b)
        assert [message["seq"] for message in waiting] == [2, 3, 4]
        [chat] = waiting[1]["event"].pop("chats")
        assert waiting[1]["event"] == {"name": "gap", "seqFrom": 3}
        assert chat == {"chatId": waiting[0]["chatId"], "after": str(given[1] - 1)}
        shown = texts(await bench.history(b, a))
        assert shown == ["first", "This message was damaged on the server.", "third"]
        assert bench.store.messages.damaged == 2


@on_both_loops
async def test_a_damaged_message_is_not_stored_twice(bench: Bench) -> None:
    """A repeat of its clientId is confirmed as before, and disturbs nobody; it is not recalled."""
    a, b = await bench.friends()
    for damage in ("x'ff'", "replace(body, 'hello', 'jello')", "x''"):
        given = await bench.send(a, b, "hello", client_id=damage)
        bench.damage(f"UPDATE message SET body = CAST({damage} AS TEXT) WHERE id = {given[0]}")
        assert await bench.send(a, b, "hello", client_id=damage) == given
        with pytest.raises(Refusal, match="damaged"):
            await bench.store.messages.recall(a, given[0], 0)
        assert (await bench.store.tracing.trace(given[0], 0, 10)).type == "damaged"
    await bench.send(a, b, "next")
    assert [message["seq"] for message in await bench.waiting(b)] == [2, 3, 4, 5]


@on_both_loops
async def test_messages_of_earlier_versions_have_no_checksum(bench: Bench) -> None:
    """They are delivered as they are."""
    a, b = await bench.friends()
    [number] = await bench.send(a, b, "old")
    bench.damage("UPDATE message SET checksum = NULL")
    assert texts(await bench.waiting(b)) == ["old"]
    assert texts(await bench.history(b, a)) == ["old"]
    # What is no text, or nothing, was never one.
    for damage in ("x'ff'", "x''"):
        bench.damage(f"UPDATE message SET body = CAST({damage} AS TEXT) WHERE id = {number}")
        assert [one["event"]["name"] for one in await bench.waiting(b)] == ["gap"]
        shown = texts(await bench.history(b, a))
        assert shown == ["This message was damaged on the server."]


@on_both_loops
async def test_a_store_that_ends_before_what_was_confirmed_is_refused(bench: Bench) -> None:
    """As after a log that was cut short; without the file that says so it starts."""
    a, b = await bench.friends()
    await bench.send(a, b, "kept")
    await bench.store.close()
    before = (bench.folder / FILE).read_bytes()
    await bench.open()
    last = (await bench.send(a, b, "lost"))[-1]
    await bench.store.close()
    (bench.folder / FILE).write_bytes(before)
    for _ in range(2):
        with pytest.raises(StoreRefused, match=f"messages up to {last} were confirmed"):
            await bench.open()
    (bench.folder / "newest").unlink()
    await bench.open()
    assert texts(await bench.history(b, a)) == ["kept"]


# --- devices ----------------------------------------------------------------------------------


@on_both_loops
async def test_the_first_device_takes_over_what_waits(bench: Bench) -> None:
    """Without a device messages wait in a line with the limits of a queue; the first one has it."""
    await bench.reopen(queue=Queue(messages=3))
    a, b = await bench.user(), await bench.user()
    await bench.befriend(a, b)
    await bench.send(a, b, "1", "2", "3", "4")
    bound = await bench.bind(b)
    assert (bound.acked, bound.first, bound.last, bound.queued) == (0, 1, 4, 4)
    waiting = await bench.waiting(bound.actor)
    assert seqs(waiting) == [1, 2, 3, 4]
    assert waiting[0]["event"]["name"] == "friend_request"
    assert texts(waiting)[1:3] == ["1", "2"]
    assert waiting[3]["event"]["name"] == "gap"
    second = await bench.bind(b, online=(bound.actor.device,))
    assert (second.first, second.last, second.queued) == (0, 0, 0)
    assert bench.sql("SELECT count(*) FROM queue WHERE device <> ?", bound.actor.device) == [(1,)]


@on_both_loops
async def test_what_the_last_device_had_not_acked_waits_for_the_next(bench: Bench) -> None:
    """Only the last device's rows go back to the line, with seqs of the line's own."""
    a, b = await bench.friends()
    b2 = (await bench.bind(Actor(b.account))).actor
    await bench.send(a, b, "1", "2", "3")
    await bench.ack(b2, 2)
    await bench.store.devices.logout(b)
    assert await bench.store.devices.of(b.account) == [(b2.device, "", bench.clock.ms)]
    await bench.store.devices.logout(b2)
    await bench.send(a, b, "4")
    await bench.reopen()
    again = await bench.bind(Actor(b.account))
    assert (again.first, again.last, again.queued) == (1, 2, 2)
    assert texts(await bench.waiting(again.actor)) == ["3", "4"]
    await bench.send(a, b, "5")
    assert seqs(await bench.waiting(again.actor)) == [1, 2, 3]


@on_both_loops
async def test_gaps_move_with_their_queue(bench: Bench) -> None:
    """A gap keeps its chats from device to line and on to the next device, and still collects."""
    await bench.reopen(queue=Queue(messages=2))
    a, b = await bench.friends()
    sent = await bench.send(a, b, "1", "2", "3")
    await bench.store.devices.logout(b)
    await bench.send(a, b, "4")
    again = (await bench.bind(Actor(b.account))).actor
    await bench.send(a, b, "5")
    waiting = await bench.waiting(again)
    assert seqs(waiting) == [1, 2, 3]
    gap = waiting[2]["event"]
    assert gap["seqFrom"] == 3
    assert gap["chats"] == [{"chatId": f"{a.account}-{b.account}", "after": str(sent[2] - 1)}]


@on_both_loops
async def test_an_eleventh_device_signs_out_the_one_longest_offline(bench: Bench) -> None:
    """Who is online is not signed out; when all are, there is no room (4006)."""
    a = await bench.user()
    devices = []
    for _ in range(3):
        bench.clock.ms += 1000
        devices.append((await bench.bind(a, most=3)).actor.device)
    bound = await bench.bind(a, most=3, online=(devices[0],))
    assert bound.signed_out == devices[1]
    online = (devices[0], devices[2], bound.actor.device)
    with pytest.raises(Refusal) as refusal:
        await bench.bind(a, most=3, online=online)
    assert status_of(refusal) == Status.LIMIT_REACHED
    assert [row[0] for row in await bench.store.devices.of(a.account)] == sorted(online)


@on_both_loops
async def test_a_device_lives_ninety_days_without_a_connection(bench: Bench) -> None:
    """Unseen for too long it is unknown at once, and removed by the maintenance."""
    a, b = await bench.friends()
    token = _token(bench, b)
    bench.clock.ms += 89 * DAY
    bench.store.seen(a)
    await bench.store.writer.barrier()
    bench.clock.ms += 2 * DAY
    oldest = bench.clock.ms - 90 * DAY
    with pytest.raises(Refusal) as refusal:
        await bench.store.devices.bind(token, None, "", oldest=oldest, then=lambda bound: None)
    assert status_of(refusal) == Status.ERROR_NET
    assert await bench.store.devices.drop_unseen(oldest, 10) == 1
    assert await bench.store.devices.drop_unseen(oldest, 10) == 0
    assert ("signed_out", b.device) in bench.signals
    bound = await bench.store.devices.bind(
        _token(bench, a), None, "", oldest=oldest, then=lambda bound: None
    )
    assert bound.actor.device == a.device


@on_both_loops
async def test_all_who_go_are_noted(bench: Bench) -> None:
    """Many who go at once share a commit, and those of the last moment are in the last one."""
    a, b = await bench.friends()
    c = (await bench.bind(await bench.user())).actor
    seen = "SELECT last_seen FROM device WHERE id IN (?, ?, ?) ORDER BY id"
    bench.clock.ms += 1000
    verbs = bench.store.writer.sizes.total
    for actor in (a, b, c, a):
        bench.store.seen(actor)
    for _ in range(2):
        await bench.store.writer.barrier()
    assert bench.store.writer.sizes.total - verbs == 2 + 2
    assert bench.sql(seen, a.device, b.device, c.device) == [(bench.clock.ms,)] * 3
    bench.clock.ms += 1000
    for actor in (a, b, c):
        bench.store.seen(actor)
    await bench.reopen()
    assert bench.sql(seen, a.device, b.device, c.device) == [(bench.clock.ms,)] * 3


@on_both_loops
async def test_a_device_is_bound_by_its_own_account_only(bench: Bench) -> None:
    """With a login of another account, or an unknown token, a device cannot be taken up."""
    a, b = await bench.friends()
    for token, actor in ((_token(bench, b), a), (b"unknown", None)):
        with pytest.raises(Refusal) as refusal:
            await bench.store.devices.bind(token, actor, "", oldest=0, then=lambda bound: None)
        assert status_of(refusal) == Status.ERROR_NET


# --- clientIds --------------------------------------------------------------------------------


@on_both_loops
async def test_a_client_id_is_one_message(bench: Bench) -> None:
    """A repeat is confirmed with the same msgId: in one list, in one batch, later, reopened."""
    a, b = await bench.friends()
    first, again = await bench.send(a, b, "x", "x", client_id="c1")
    outcomes = await asyncio.gather(*(bench.post(a, b, "x", client_id="c1") for _ in range(3)))
    numbers = {cast(Accepted, post.results[0][0]).msg_id for post in outcomes}
    await bench.reopen()
    [late] = await bench.send(a, b, "x", client_id="c1")
    assert {first, again, late, *numbers} == {first}
    assert ids(await bench.waiting(b)) == [first]
    [others] = await bench.send(b, a, "x", client_id="c1")
    assert others > first


@on_both_loops
async def test_a_client_id_with_other_content_is_refused(bench: Bench) -> None:
    """The same clientId for another text or recipient is 4003, within a list as well."""
    a, b = await bench.friends()
    await bench.send(a, b, "x", client_id="c1")
    assert await bench.refused(a, b, "y", client_id="c1") == Status.BAD_FIELD
    [[failed]] = (await bench.post(a, b, "x", "y", client_id="c2")).results
    assert isinstance(failed, Failed)
    assert (failed.index, failed.status) == (1, Status.BAD_FIELD)
    assert texts(await bench.waiting(b)) == ["x"]


@on_both_loops
async def test_a_repeat_is_confirmed_when_rights_have_changed(bench: Bench) -> None:
    """What was stored stays confirmed though its sender could not send it now."""
    a, b = await bench.friends()
    [number] = await bench.send(a, b, "x", client_id="c1")
    await bench.store.friends.block(b, a.account)
    assert await bench.send(a, b, "x", client_id="c1") == [number]
    assert await bench.refused(a, b, "x", client_id="c2") == Status.NOT_ALLOWED


@on_both_loops
async def test_a_client_id_is_kept_seven_days(bench: Bench) -> None:
    """Within seven days it stands for its message; then it may be used for another one."""
    a, b = await bench.friends()
    [first] = await bench.send(a, b, "x", client_id="c1")
    bench.clock.ms += 7 * DAY
    assert await bench.send(a, b, "x", client_id="c1") == [first]
    bench.clock.ms += 1
    [second, again] = await bench.send(a, b, "y", "y", client_id="c1")
    assert first < second == again
    assert await bench.send(a, b, "y", client_id="c1") == [second]


@on_both_loops
async def test_old_client_ids_are_freed_in_steps(bench: Bench) -> None:
    """Maintenance frees the ids of old messages, some at a time, and no younger ones."""
    a, b = await bench.friends()
    for number in range(5):
        await bench.send(a, b, "x", client_id=f"old {number}")
    bench.clock.ms += 8 * DAY
    [young] = await bench.send(a, b, "x", client_id="young")
    before = bench.clock.ms - 7 * DAY
    while await bench.store.messages.free_client_ids(before, 2):
        pass
    await bench.reopen()
    kept = {row[0] for row in bench.sql("SELECT message FROM client_key")}
    assert kept | set(bench.journal.client_keys._young.values()) == {young}


# --- recall, reading, searching ---------------------------------------------------------------


@on_both_loops
async def test_a_recalled_message_is_a_stub_everywhere(bench: Bench) -> None:
    """Queue and history show the stub with the same msgId and seq; search finds it no more."""
    a, b = await bench.friends()
    first, second = await bench.send(a, b, "secret word", "other")
    await bench.store.messages.recall(a, first, 0)
    await bench.store.messages.recall(a, first, 0)
    stub, other, event = await bench.waiting(b)
    assert (stub["recalled"], stub["msgId"], stub["seq"]) == (True, str(first), 2)
    assert "secret" not in json.dumps(stub)
    assert (ids([other]), event["event"]["name"]) == ([second], "recalled")
    assert event["event"]["msgId"] == str(first)
    assert [one.get("recalled", False) for one in await bench.history(b, a)] == [True, False]
    assert await bench.found(b, "secret") == []
    assert bench.sql("SELECT count(*) FROM message WHERE body LIKE '%secret%'") == [(0,)]


@on_both_loops
async def test_a_retry_of_a_recalled_message_is_known(bench: Bench) -> None:
    """Its content is gone and its clientId still stands for it, and for nothing else."""
    a, b = await bench.friends()
    [number] = await bench.send(a, b, "x", client_id="c1")
    await bench.store.messages.recall(a, number, 0)
    assert await bench.send(a, b, "x", client_id="c1") == [number]
    assert await bench.refused(a, b, "y", client_id="c1") == Status.BAD_FIELD


@on_both_loops
async def test_who_may_recall_what(bench: Bench) -> None:
    """Another's message is 4004, one that is too old as well; an unknown or foreign one is 4005."""
    a, b = await bench.friends()
    c, d = await bench.friends()
    [number] = await bench.send(a, b, "x")
    [foreign] = await bench.send(c, d, "x")
    cases = [
        (b, number, 0, Status.NOT_ALLOWED),
        (a, number, bench.clock.ms + 1, Status.NOT_ALLOWED),
        (a, foreign, 0, Status.NOT_FOUND),
        (a, 999_999, 0, Status.NOT_FOUND),
    ]
    for actor, message, since, status in cases:
        with pytest.raises(Refusal) as refusal:
            await bench.store.messages.recall(actor, message, since)
        assert status_of(refusal) == status
    assert texts(await bench.history(b, a)) == ["x"]


async def _chat(bench: Bench, viewer: Actor, peer: Actor) -> dict[str, Any]:
    listed, _ = await bench.store.messages.chats(viewer.account, MAX_INT, 0, 100)
    key = key_for(viewer.account, "", peer.account)
    return next(chat for chat in listed if chat["chatId"] == key)


@on_both_loops
async def test_read_marks_move_on_and_never_back(bench: Bench) -> None:
    """Unread counts what others sent behind the mark; the peer sees it unless that is private."""
    a, b = await bench.friends()
    key = key_for(a.account, "", b.account)
    sent = await bench.send(a, b, "1", "2", "3")
    await bench.send(b, a, "mine")
    assert (await _chat(bench, b, a))["unread"] == 4  # the request counts too
    await bench.store.messages.mark_read(b, key, sent[1])
    await bench.store.messages.mark_read(b, key, sent[0])
    chat = await _chat(bench, b, a)
    assert (chat["unread"], chat["read"]) == (1, str(sent[1]))
    assert (await _chat(bench, a, b))["peerRead"] == str(sent[1])
    assert [signal[0] for signal in bench.signals] == ["read"]
    await bench.store.accounts.set_privacy(b, {"read_receipts": False})
    assert (await _chat(bench, a, b))["peerRead"] == "0"


@on_both_loops
async def test_a_bare_read_mark_goes_to_what_the_device_has_acked(bench: Bench) -> None:
    """Without a msgId the mark goes to the newest message of that chat that was acked."""
    a, b = await bench.friends()
    sent = await bench.send(a, b, "1", "2")
    key = key_for(a.account, "", b.account)
    await bench.store.messages.mark_read(b, key, 0)
    assert (await _chat(bench, b, a))["read"] < str(sent[0])
    await bench.ack(b, 2)
    await bench.store.messages.mark_read(b, key, 0)
    assert (await _chat(bench, b, a))["read"] == str(sent[0])
    with pytest.raises(Refusal) as refusal:
        await bench.store.messages.mark_read(b, "10777-10888", 0)
    assert status_of(refusal) == Status.NOT_FOUND


@on_both_loops
async def test_recalled_messages_are_not_unread(bench: Bench) -> None:
    """A stub is nothing that anybody has to read."""
    a, b = await bench.friends()
    sent = await bench.send(a, b, "1", "2")
    await bench.store.messages.recall(a, sent[0], 0)
    assert (await _chat(bench, b, a))["unread"] == 2  # the other one, and the request


@on_both_loops
async def test_how_far_a_message_has_come(bench: Bench) -> None:
    """Status counts the recipient's devices, those that acked it, and readers."""
    a, b = await bench.friends()
    await bench.bind(Actor(b.account))
    [number] = await bench.send(a, b, "x")
    await bench.bind(Actor(b.account))  # it came later and does not count
    await bench.ack(b, 2)
    status = await bench.store.messages.status(a.account, number)
    assert (status.devices, status.delivered, status.read) == (2, 1, 0)
    await bench.store.messages.mark_read(b, key_for(a.account, "", b.account), number)
    assert (await bench.store.messages.status(a.account, number)).read == 1
    with pytest.raises(Refusal):
        await bench.store.messages.status(b.account, number)


@on_both_loops
async def test_search_finds_what_stands_there(bench: Bench) -> None:
    """Texts are matched folded and literally, Chinese words of one or two characters too."""
    a, b = await bench.friends()
    c, d = await bench.friends()
    words = ["我爱北京天安门", "Ärger in der STRASSE", "100% sure", "a_b", "axb"]
    numbers = dict(zip(words, await bench.send(a, b, *words), strict=True))
    await bench.send(c, d, "北京")
    queries = {
        "北京": words[:1],
        "京": words[:1],
        "ärger": words[1:2],
        "strasse": words[1:2],
        "straße": words[1:2],
        "%": words[2:3],
        "_": words[3:4],
        "nowhere": [],
    }
    for query, expected in queries.items():
        assert await bench.found(b, query) == [numbers[word] for word in expected], query


@on_both_loops
async def test_history_pages_by_msg_id(bench: Bench) -> None:
    """Each of 45 messages of one instant is shown once, while new ones arrive between pages."""
    a, b = await bench.friends()
    sent = await bench.send(a, b, *(str(number) for number in range(45)))
    key = key_for(a.account, "", b.account)
    seen: list[int] = []
    before = MAX_INT
    while before:
        items, more = await bench.store.messages.history(b.account, key, before, -1, 10)
        seen = [int(json.loads(item)["msgId"]) for item in items] + seen
        before = int(more or 0)
        await bench.send(a, b, "new")
    assert seen[1:] == sent  # behind the request


@on_both_loops
async def test_a_stranger_reads_nothing(bench: Bench) -> None:
    """History of a chat that one is not in is empty, and its key cannot even be named."""
    a, b = await bench.friends()
    c, _ = await bench.friends()
    await bench.send(a, b, "private")
    key = key_for(a.account, "", b.account)
    assert await bench.store.messages.history(c.account, key, MAX_INT, -1, 10) == ([], "")
    with pytest.raises(Refusal):
        key_for(c.account, key, 0)


# --- the clock --------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [-40 * DAY, -3_600_000, 40 * DAY])
def test_order_does_not_follow_the_clock(tmp_path: Path, jump: int) -> None:
    """With the clock set back or forward msgId and seq go on rising, over a reopen too."""

    async def run(bench: Bench) -> None:
        a, b = await bench.friends()
        sent = await bench.send(a, b, "1")
        bench.clock.ms += jump
        sent += await bench.send(a, b, "2")
        await bench.reopen()
        sent += await bench.send(a, b, "3")
        bench.clock.ms -= jump
        sent += await bench.send(a, b, "4")
        assert sent == sorted(set(sent))
        waiting = await bench.waiting(b)
        assert (seqs(waiting), ids(waiting)) == ([2, 3, 4, 5], sent)
        assert ids(await bench.history(b, a)) == sent
        chats, _ = await bench.store.messages.chats(b.account, MAX_INT, 0, 10)
        assert json.loads(msgspec.json.encode(chats[0]["last"]))["msgId"] == str(sent[-1])

    _run(run, tmp_path)


def test_a_jump_of_the_clock_expires_nothing_unsaid(tmp_path: Path) -> None:
    """+40 days turns waiting messages into a gap that says where they are; back again, they stay.

    A repeat across the jump is still known as long as its age is within the documented days.
    """

    async def run(bench: Bench) -> None:
        a, b = await bench.friends()
        sent = await bench.send(a, b, "1", "2", client_id=None)
        bench.clock.ms += 40 * DAY
        await bench.store.retention.expire_queues(bench.clock.ms - 30 * DAY, 10)
        [gap] = await bench.waiting(b)
        assert gap["event"]["seqFrom"] == 2
        assert gap["event"]["chats"][0]["after"] == str(sent[0] - 1)
        bench.clock.ms -= 40 * DAY
        [third] = await bench.send(a, b, "3", client_id="c3")
        bench.clock.ms -= 40 * DAY
        assert await bench.send(a, b, "3", client_id="c3") == [third]
        assert await bench.store.retention.expire_queues(bench.clock.ms - 30 * DAY, 10) == 0
        assert texts(await bench.history(b, a)) == ["1", "2", "3"]

    _run(run, tmp_path)


def _run(test: Callable[[Bench], Awaitable[None]], folder: Path) -> None:
    async def with_bench() -> None:
        bench = Bench(folder / "data")
        await bench.open()
        try:
            await test(bench)
        finally:
            await bench.store.close()

    asyncio.run(with_bench())


# --- caches -----------------------------------------------------------------------------------

TINY = StoreConfig(reserve=0, readers=1, cache_accounts=1, cache_pairs=1)


@on_both_loops
async def test_caches_keep_their_bounds(bench: Bench) -> None:
    """However many people write to each other, no cache grows beyond its setting."""
    await bench.reopen(store=TINY)
    people = [await bench.friends() for _ in range(3)]
    for a, b in people:
        await bench.send(a, b, "1")
        await bench.send(b, a, "2")
    journal = bench.journal
    assert len(journal._mailboxes) <= 1
    assert len(journal._routes) <= 1
    assert len(journal._chats) <= 1
    assert len(journal._queues) <= 4  # the line and the devices of one account


class Walk:
    """Random things that happen to one receiver, and what must be true of its stream."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench = bench
        self.random = random.Random(seed)
        self.senders: list[Actor] = []
        self.receiver: Actor
        self.sent: dict[int, str] = {}  # msgId -> chat
        self.got: dict[int, int] = {}  # msgId -> seq, of the receiver's one device
        self.gaps: list[dict[str, Any]] = []
        self.acked = 1
        self.taken = 1  # the highest seq taken in

    async def set_up(self) -> None:
        self.receiver = await self.bench.user()
        self.receiver = (await self.bench.bind(self.receiver)).actor
        for _ in range(3):
            sender = await self.bench.user()
            await self.bench.befriend(sender, self.receiver)
            self.senders.append((await self.bench.bind(sender)).actor)
        self.acked = self.taken = 0
        for message in await self.bench.waiting(self.receiver):
            self.taken = message["seq"]
        await self.ack(self.taken)

    async def ack(self, seq: int) -> None:
        await self.bench.ack(self.receiver, seq)
        self.acked = seq

    async def step(self) -> None:
        match self.random.choice(["send", "send", "send", "take", "ack", "late", "reopen"]):
            case "send":
                sender = self.random.choice(self.senders)
                count = self.random.randint(1, 4)
                for number in await self.bench.send(sender, self.receiver, *["x"] * count):
                    self.sent[number] = key_for(sender.account, "", self.receiver.account)
            case "take":
                await self.take(self.random.randint(1, 5))
            case "ack":
                await self.ack(self.random.randint(self.acked, self.taken))
            case "late":
                self.bench.clock.ms += self.random.randint(1, 20) * DAY
                await self.bench.store.retention.expire_queues(self.bench.clock.ms - 30 * DAY, 10)
            case "reopen":
                await self.bench.reopen()
                self.taken = self.acked

    async def take(self, count: int) -> None:
        """Take in a page: seqs without a hole, nothing twice under another seq."""
        for message in await self.bench.page(self.receiver, self.taken, count):
            event = message.get("event")
            first = event["seqFrom"] if event else message["seq"]
            assert first == self.taken + 1, message
            self.taken = message["seq"]
            if event:
                self.gaps.append(event)
            else:
                number = int(message["msgId"])
                assert self.got.setdefault(number, message["seq"]) == message["seq"]

    def assert_accounted_for(self) -> None:
        """Each confirmed message arrived, or a gap says where to find it."""
        starts = [
            (chat["chatId"], int(chat["after"])) for gap in self.gaps for chat in gap["chats"]
        ]
        for number, chat in self.sent.items():
            told = any(chat == known and after < number for known, after in starts)
            assert number in self.got or told, f"{number} vanished"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("settings", [TINY, StoreConfig(reserve=0, readers=1)])
def test_no_message_vanishes(tmp_path: Path, seed: int, settings: StoreConfig) -> None:
    """Through full queues, expiry, acks and reopening, with tiny caches as with large ones."""

    async def run(bench: Bench) -> None:
        await bench.reopen(store=settings, queue=Queue(messages=8))
        walk = Walk(bench, seed)
        await walk.set_up()
        for _ in range(40):
            await walk.step()
        await walk.take(10_000)
        [[last]] = bench.sql("SELECT last FROM position WHERE device = ?", walk.receiver.device)
        assert walk.taken == last
        walk.assert_accounted_for()
        assert bench.sql("PRAGMA integrity_check") == [("ok",)]
        assert bench.sql("PRAGMA foreign_key_check") == []

    _run(run, tmp_path)
