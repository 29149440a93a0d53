"""Tracing and mailings on a store, with a clock that the tests move."""

from typing import Any

import pytest

from pushd.config import Limits, Queue, Trace
from pushd.draft import notice
from pushd.errors import Refusal
from pushd.model import Actor, InfoIn
from pushd.store import marks
from pushd.store.mailing import STEP_ROWS, Mailing
from pushd.store.tracing import Place
from tests.test_store import Bench, on_both_loops, status_of

DAY_MS = 86_400_000
HELLO = notice(InfoIn("0", "hello"), 0, Limits())


async def place(bench: Bench, number: int) -> Place:
    """The one place of a message."""
    [found] = (await bench.store.tracing.trace(number, 0, 10)).places
    return found


async def mail(bench: Bench, name: str, *to: Actor) -> Mailing:
    """Begin a mailing to these, or to all, and go on until it is done."""
    accounts = [one.account for one in to] or None
    found = await bench.store.mailings.begin(name, HELLO, accounts)
    while not found.done:
        found = await bench.store.mailings.go_on(name)
    return found


# Times


@on_both_loops
async def test_each_ack_is_found_among_many(bench: Bench) -> None:
    """A message's ack has its own time when nothing else was acked beside it."""
    one, other = await bench.friends()
    times = {}
    bench.clock.ms += 10_000
    for text in map(str, range(40)):
        [number] = await bench.send(one, other, text)
        bench.clock.ms += 3_000
        await bench.ack(other, len(times) + 2)
        times[number] = bench.clock.ms
        bench.clock.ms += 10_000
    for number, at in times.items():
        found = await place(bench, number)
        assert (found.state, found.acked, found.acked_exact) == ("acked", at, True)
    await bench.reopen()
    assert (await place(bench, number)).acked == at


@on_both_loops
async def test_acks_without_pause_make_few_marks(bench: Bench) -> None:
    """Between two marks lie `trace.seconds`; what is between has the later time, or the last."""
    one, other = await bench.friends()
    bench.clock.ms += 10_000
    began = bench.clock.ms
    numbers = []
    for seq in range(2, 27):
        numbers += await bench.send(one, other, "x")
        await bench.ack(other, seq)
        bench.clock.ms += 1_000
    marked = bench.sql("SELECT at FROM ack_mark WHERE at >= ?", began)
    assert [at - began for (at,) in marked] == [0, 10_000, 20_000]
    found = [await place(bench, number) for number in numbers]
    told = [(one.acked - began) // 1000 for one in found]
    assert told == [0, *[10] * 10, *[20] * 10, *[24] * 4]
    assert [one.acked_exact for one in found] == [seq % 10 == 0 and seq < 21 for seq in range(25)]


@on_both_loops
async def test_a_batch_that_fails_marks_once(bench: Bench) -> None:
    """A mark is written with the batch that moves the position, however often that is tried."""
    one, other = await bench.friends()
    bench.clock.ms += 10_000
    [number] = await bench.send(one, other, "x")
    [before] = bench.sql("SELECT count(*) FROM ack_mark")
    bench.store.ack(other, 2, number)
    with pytest.raises(ZeroDivisionError):
        await bench.store.writer.call(lambda journal: 1 // 0)
    await bench.store.writer.barrier()
    assert bench.sql("SELECT count(*) FROM ack_mark") == [(before[0] + 1,)]
    assert (await place(bench, number)).acked == bench.clock.ms


@on_both_loops
async def test_reading(bench: Bench) -> None:
    """Read marks are kept likewise."""
    one, other = await bench.friends()
    numbers = await bench.send(one, other, "a", "b")
    key = f"{one.account}-{other.account}"
    for number in numbers:
        await bench.store.messages.mark_read(other, key, number)
        bench.clock.ms += 1_000
    first, second = [await place(bench, number) for number in numbers]
    assert (first.read, first.read_exact) == (bench.clock.ms - 2_000, True)
    assert (second.read, second.read_exact) == (bench.clock.ms - 1_000, False)


@on_both_loops
async def test_commits_are_kept_in_a_ring(bench: Bench) -> None:
    """The time of a commit is forgotten when too many came after it."""
    await bench.reopen(trace=Trace(commits=2))
    one, other = await bench.friends()
    numbers = [(await bench.send(one, other, text))[0] for text in "abc"]
    kept = [(await bench.store.tracing.trace(number, 0, 1)).committed for number in numbers]
    assert kept == [0, bench.clock.ms, bench.clock.ms]


# Bounds


@on_both_loops
async def test_marks_are_removed(bench: Bench) -> None:
    """Old marks go, young ones stay; without its mark a message is acked by the last ack's time."""
    one, other = await bench.friends()
    [old] = await bench.send(one, other, "old")
    bench.clock.ms += 10_000
    await bench.ack(other, 2)
    bench.clock.ms += 8 * DAY_MS
    [young] = await bench.send(one, other, "young")
    await bench.ack(other, 3)
    while await bench.store.tracing.trim(2):
        pass
    assert len(bench.sql("SELECT 1 FROM ack_mark")) == 1
    for number in (old, young):
        found = await place(bench, number)
        assert (found.state, found.acked) == ("acked", bench.clock.ms)


def test_marks_are_few(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """There are `trace.marks` of them at most."""
    monkeypatch.setattr(marks, "TRIM_PERIOD", 1)

    @on_both_loops
    async def few(bench: Bench) -> None:
        await bench.reopen(trace=Trace(seconds=0, marks=5))
        one, other = await bench.friends()
        for seq in range(2, 22):
            await bench.send(one, other, "x")
            await bench.ack(other, seq)
        assert len(bench.sql("SELECT 1 FROM ack_mark")) == 5

    few("asyncio", tmp_path)  # type: ignore[call-arg, arg-type]


@on_both_loops
async def test_what_waited_too_long(bench: Bench) -> None:
    """What a gap stands for says so, also when the gap is acked."""
    await bench.reopen(queue=Queue(days=1))
    one, other = await bench.friends()
    [old] = await bench.send(one, other, "old")
    bench.clock.ms += 2 * DAY_MS
    [young] = await bench.send(one, other, "young")
    assert await bench.store.retention.expire_queues(bench.clock.ms - DAY_MS) == 1
    assert [(await place(bench, number)).state for number in (old, young)] == ["gap", "queued"]
    await bench.ack(other, 2)
    assert [(await place(bench, number)).state for number in (old, young)] == ["gap", "queued"]


# Mailings


@pytest.mark.slow
@on_both_loops
async def test_many_who_are_skipped(bench: Bench) -> None:
    """A whole step of disabled accounts is no end."""
    users = [await bench.user() for _ in range(2 * STEP_ROWS + 1)]
    for one in users[: 2 * STEP_ROWS]:
        await bench.store.lifecycle.set_disabled(one.account, True)
    found = await mail(bench, "all")
    assert (found.reached, found.skipped) == (1, 2 * STEP_ROWS)


@on_both_loops
async def test_what_it_says_is_forgotten(bench: Bench) -> None:
    """Once a mailing is done only a hash of it is left."""
    one = await bench.user()
    await mail(bench, "all")
    [row] = bench.sql("SELECT * FROM mailing")
    assert "hello" not in repr(row)
    assert not any(bench.sql("SELECT accounts FROM mailing")[0])
    assert one.account


@on_both_loops
async def test_client_ids_are_free_again(bench: Bench) -> None:
    """A mailing is remembered for as long as a clientId."""
    one = await bench.user()
    first = await mail(bench, "a", one)
    again = await mail(bench, "a", one)
    assert again.number == first.number
    other = notice(InfoIn("0", "other"), 0, Limits())
    with pytest.raises(Refusal) as refusal:
        await bench.store.mailings.begin("a", other, [one.account])
    assert refusal.value.field == "clientId"
    assert status_of(refusal) == 4003
    bench.clock.ms += 1
    assert await bench.store.mailings.trim(bench.clock.ms, 10) == 1
    assert bench.sql("SELECT 1 FROM mailing_step") == []
    assert (await mail(bench, "a", one)).number != first.number


@on_both_loops
async def test_who_is_gone_meanwhile(bench: Bench) -> None:
    """Whoever was deleted or disabled before their turn is skipped."""
    users = [await bench.user() for _ in range(STEP_ROWS + 2)]
    begun = await bench.store.mailings.begin("a", HELLO, [one.account for one in users])
    assert (begun.done, begun.reached) == (0, STEP_ROWS)
    await bench.store.lifecycle.remove(users[-1].account)
    await bench.store.lifecycle.set_disabled(users[-2].account, True)
    done = await bench.store.mailings.go_on("a")
    assert (done.reached, done.skipped) == (STEP_ROWS, 2)
    assert len(await bench.store.mailings.message_ids(done.number)) == STEP_ROWS


@on_both_loops
async def test_expired_in_the_line(bench: Bench) -> None:
    """What waits for an account without a device expires there as in a queue."""
    one = await bench.user()
    soon = notice(InfoIn("0", "hello"), 60, Limits())
    begun = await bench.store.mailings.begin("a", soon, [one.account])
    [number] = await bench.store.mailings.message_ids(begun.number)
    assert (await place(bench, number)).state == "waiting"
    bench.clock.ms += 60_000
    assert (await place(bench, number)).state == "expired"
