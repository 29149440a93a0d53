"""The two lines before the writer: turns, order, and what is learnt."""

import random
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from pushd.store.lines import WIDE, WIDE_BATCH, WIDE_CHATS, Lines

BATCH = 4


@dataclass(eq=False)
class Op:
    """An operation as the lines see it; `rows` are what it delivers when it is applied."""

    sender: int = 0
    chats: frozenset[str] = frozenset()
    rows: int = 0
    number: int = 0
    lists: int = 1  # how many batches it takes
    lately: int = 1
    wide: bool = False
    weight: int = 1
    grows: bool = True
    deliveries: list[Any] = field(default_factory=list)
    signals: list[Any] = field(default_factory=list)
    error: BaseException | None = None

    def apply(self, journal: object) -> bool:
        """Deliver."""
        self.deliveries = [None] * self.rows
        self.lists -= 1
        return not self.lists

    def advance(self) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""


def post(sender: int, chat: str, rows: int, **more: int) -> Op:
    """Make a post into a chat."""
    return Op(sender, frozenset((chat, "")), rows, **more)


def commit(lines: Lines, batch: list[Op]) -> list[Op]:
    """Apply a batch as the journal does, one wide post at most; return what is finished."""
    for index, operation in enumerate(batch):
        if not operation.apply(None):
            lines.put_back(batch[index:])
            operation.deliveries = []
            return batch[:index]
        lines.finished(operation)
        if operation.rows >= WIDE and batch[index + 1 :]:
            lines.put_back(batch[index + 1 :])
            return batch[: index + 1]
    return batch


def learnt(*chats: str) -> Lines:
    """Make lines that know these chats to be wide."""
    lines = Lines(BATCH)
    for chat in chats:
        lines.add(post(1, chat, WIDE))
        commit(lines, lines.take())
    return lines


def test_one_line_is_as_it_came() -> None:
    """Without wide chats operations come in order, in batches of the bound."""
    lines = Lines(BATCH)
    ops = [Op(number=n) for n in range(6)]
    for each in ops:
        lines.add(each)
    assert [lines.take(), lines.take(), lines.take()] == [ops[:4], ops[4:], []]
    assert not lines


def test_the_lines_take_turns() -> None:
    """Behind one batch of wide posts comes what else waits, then wide posts again."""
    lines = learnt("g1")
    wide = [post(2, "g1", WIDE, number=n) for n in range(3)]
    for each in wide:
        lines.add(each)
    first = lines.take()
    assert first == wide
    assert commit(lines, first) == wide[:1]
    small = [Op(3), Op(4)]
    for each in small:
        lines.add(each)
    assert lines.take() == small
    lines.add(Op(5))
    assert commit(lines, lines.take()) == wide[1:2]
    assert [each.sender for each in lines.take()] == [5]
    assert lines.take() == wide[2:]


def test_a_batch_takes_few_wide_posts() -> None:
    """What stands far behind in the wide line is not looked at with each batch."""
    lines = learnt("g1")
    for _ in range(3 * WIDE_BATCH):
        lines.add(post(2, "g1", WIDE))
    assert len(lines.take()) == WIDE_BATCH


def test_a_sender_keeps_their_order() -> None:
    """What stands around a wide post of the same account goes with it; others' posts do not."""
    lines = learnt("g1")
    before, wide, behind = Op(2, number=1), post(2, "g1", WIDE), Op(2, number=2)
    for each in (before, wide, behind, other := Op(3)):
        lines.add(each)
    assert [lines.take(), lines.take()] == [[before, wide, behind], [other]]
    for each in (before, wide, behind):
        lines.finished(each)
    lines.add(again := Op(2))
    assert lines.take() == [again]
    assert not again.wide


def test_a_post_in_parts_stays_first() -> None:
    """A post that turns out to be wide changes the line, with all of its sender's behind it."""
    lines = Lines(BATCH)
    large = post(2, "g1", WIDE, lists=3)
    ops = [large, Op(3, number=1), Op(2, number=2), post(4, "g1", WIDE)]
    for each in ops:
        lines.add(each)
    assert commit(lines, lines.take()) == []
    assert commit(lines, lines.take()) == []  # the turn of the wide line
    assert commit(lines, lines.take()) == [ops[1]]
    assert commit(lines, lines.take()) == [large]
    assert commit(lines, lines.take()) == [ops[2], ops[3]]
    assert not lines


def test_a_chat_that_shrank_is_wide_no_more() -> None:
    """What is learnt is what the last post wrote."""
    lines = learnt("g1")
    lines.add(small := post(2, "g1", 10))
    assert small.wide
    commit(lines, lines.take())
    lines.add(again := post(2, "g1", 10))
    assert not again.wide


def test_what_is_learnt_is_bounded() -> None:
    """The chat that was learnt first is forgotten."""
    lines = learnt("g0", *(f"g{n}" for n in range(1, WIDE_CHATS + 1)))
    lines.add(forgotten := post(2, "g0", WIDE))
    lines.add(known := post(3, f"g{WIDE_CHATS}", WIDE))
    assert (forgotten.wide, known.wide) == (False, True)


def test_drained() -> None:
    """All that waits is given, and no sender is held afterwards."""
    lines = learnt("g1")
    ops = [Op(3), post(2, "g1", WIDE)]
    for each in ops:
        lines.add(each)
    assert lines.drain() == ops
    assert not lines
    lines.add(fresh := Op(2))
    assert not fresh.wide


@pytest.mark.parametrize("seed", range(100))
def test_any_mix(seed: int) -> None:
    """Whatever comes: each sender's posts in order, none lost and none twice."""
    rng = random.Random(seed)
    lines = Lines(BATCH)
    made: list[Op] = []
    done: list[Op] = []

    def hand_in(count: int) -> None:
        for _ in range(count):
            sender, chat = rng.randrange(1, 5), rng.choice(["", "g1", "g2", "g3"])
            rows = {"": 1, "g1": WIDE, "g2": WIDE * rng.choice((0, 1)), "g3": 10}[chat]
            number = len(made)
            if chat:
                made.append(post(sender, chat, rows, number=number, lists=rng.choice((1, 1, 3))))
            else:
                made.append(Op(rng.choice((0, sender)), rows=rows, number=number))
            lines.add(made[-1])

    for _ in range(60):
        hand_in(rng.randrange(4))
        batch = lines.take()
        hand_in(rng.randrange(3))  # while the batch is committed
        finished = commit(lines, batch)
        done += finished
    while lines:
        done += commit(lines, lines.take())
    assert sorted(each.number for each in done) == list(range(len(made)))
    for sender in range(1, 5):
        own = [each.number for each in done if each.sender == sender]
        assert all(a < b for a, b in pairwise(own))
