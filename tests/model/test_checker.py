"""The checker: it finds nothing in sound logs, and finds every slip that is put into one."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.checker import (
    Acked,
    Answered,
    Delivered,
    Entry,
    Fenced,
    Left,
    Resumed,
    Sent,
    check,
)
from tests.model.entries import Asked, Event, Found, Starting, Told

PEERS = {"a": "b", "b": "a", "c": "d", "d": "c"}
SEEDS = range(5)
# A fence only tightens what is asked of the server.
MUTABLE = (Resumed, Sent, Answered, Delivered, Acked)


class Model:
    """A server in a few lines, which keeps every promise, and clients that write a log."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.log: list[Entry] = []
        self.ids = 0
        self.stored: dict[tuple[str, str], int] = {}  # user and clientId -> msgId
        self.queue: dict[str, list[Delivered]] = {user: [] for user in PEERS}  # all of it, by seq
        self.durable = dict.fromkeys(PEERS, 0)
        self.acked = dict.fromkeys(PEERS, 0)  # in this turn
        self.next = dict.fromkeys(PEERS, 0)  # index of what comes next
        self.turn = dict.fromkeys(PEERS, 0)
        self.open: dict[str, list[Sent]] = {user: [] for user in PEERS}
        self.unknown: dict[str, list[Sent]] = {user: [] for user in PEERS}
        self.count = 0
        for user in PEERS:
            self.resume(user)

    def run(self, steps: int) -> list[Entry]:
        actions = (self.send, self.send, self.answer, self.deliver, self.deliver, self.ack)
        for _ in range(steps):
            user = self.random.choice(list(PEERS))
            if self.random.random() < 0.05:
                self.crash()
            elif self.random.random() < 0.1:
                self.fence(user)
            else:
                self.random.choice(actions)(user)
        self.close()
        return self.log

    def resume(self, user: str) -> None:
        base, last = self.durable[user], len(self.queue[user])
        self.turn[user] += 1
        self.acked[user] = self.next[user] = base
        first = base + 1 if last > base else 0
        self.log.append(Resumed(user, self.turn[user], user, first, last, last - base))
        again, self.unknown[user] = self.unknown[user], []
        for sent in again:
            self._send(user, sent.client_id, sent.content)

    def send(self, user: str) -> None:
        self.count += 1
        self._send(user, f"c{self.count}", f"text {self.count}")

    def _send(self, user: str, client_id: str, content: str) -> None:
        sent = Sent(user, self.turn[user], client_id, PEERS[user], content)
        self.log.append(sent)
        self.open[user].append(sent)

    def answer(self, user: str) -> None:
        if not self.open[user]:
            return
        sent = self.open[user].pop(0)
        known = (user, sent.client_id) in self.stored
        if not known and self.random.random() < 0.1:
            self.log.append(Answered(user, sent.turn, sent.client_id, "refused"))
            return
        number = self.store(user, sent)
        self.log.append(Answered(user, sent.turn, sent.client_id, "confirmed", number))

    def store(self, user: str, sent: Sent) -> int:
        number = self.stored.get((user, sent.client_id))
        if number is None:
            self.ids += 1
            number = self.stored[user, sent.client_id] = self.ids
            queue = self.queue[sent.to]
            queue.append(Delivered(sent.to, 0, len(queue) + 1, number, user, sent.to, sent.content))
        return number

    def deliver(self, user: str) -> None:
        if self.next[user] < len(self.queue[user]):
            entry = self.queue[user][self.next[user]]
            self.log.append(entry._replace(turn=self.turn[user]))
            self.next[user] += 1

    def ack(self, user: str) -> None:
        if self.acked[user] < self.next[user]:
            self.acked[user] += 1
            self.log.append(Acked(user, self.turn[user], self.acked[user]))

    def fence(self, user: str) -> None:
        self.durable[user] = self.acked[user]
        self.log.append(Fenced(user, self.turn[user]))

    def crash(self) -> None:
        """Some of what was not answered is stored, some acks are lost, and all come back."""
        for user in PEERS:
            kept = self.random.randint(0, len(self.open[user]))
            for sent in self.open[user][:kept]:
                self.store(user, sent)
            for sent in self.open[user]:
                self.log.append(Answered(user, sent.turn, sent.client_id, "unknown"))
            self.unknown[user] = self.open[user]
            self.open[user] = []
            self.durable[user] = self.random.randint(self.durable[user], self.acked[user])
        for user in PEERS:
            self.resume(user)

    def close(self) -> None:
        for user in PEERS:
            while self.open[user]:
                self.answer(user)
        for user in PEERS:
            while self.next[user] < len(self.queue[user]):
                self.deliver(user)
            while self.acked[user] < self.next[user]:
                self.ack(user)
            self.fence(user)
            self.resume(user)


def sound(seed: int, steps: int = 120) -> list[Entry]:
    return Model(seed).run(steps)


def leaves_a_sound_log(log: list[Entry], index: int) -> bool:
    """Without this entry the log is sound too: the client may just have been slower."""
    entry = log[index]
    rest = [other for other in log[index + 1 :] if other.device == entry.device]
    resumed = next((other for other in rest if isinstance(other, Resumed)), None)
    same_turn = [other for other in rest if other.turn == entry.turn]
    if not isinstance(entry, Acked | Delivered) or not isinstance(resumed, Resumed):
        return False
    if any(type(other) is type(entry) for other in same_turn):
        return False
    if any(isinstance(other, Acked) and other.seq >= entry.seq for other in same_turn):
        return False
    base = resumed.first - 1 if resumed.queued else resumed.last
    return base < entry.seq


def refused_ids(log: list[Entry]) -> set[tuple[str, str]]:
    return {
        (entry.device, entry.client_id)
        for entry in log
        if isinstance(entry, Answered) and entry.outcome == "refused"
    }


def changes(log: list[Entry], index: int) -> Iterator[Entry]:
    """Give an entry with one field made wrong, for each of its fields."""
    entry = log[index]
    for name in entry._fields:
        value = getattr(entry, name)
        # A refused message leaves no trace by which its content could be known.
        hidden = isinstance(entry, Sent) and (entry.device, entry.client_id) in refused_ids(log)
        skipped = name in ("device", "outcome") or (name == "msg_id" and not value)
        if skipped or (hidden and name in ("to", "content")):
            continue
        if name == "time":
            continue  # of what arrives once nobody knows another
        wrong: Any = value + 1 if isinstance(value, int) else f"{value}x"
        if value is None:
            wrong = Event("made up")
        yield entry._replace(**{name: wrong})


def next_of_kind(log: list[Entry], index: int) -> int:
    """Find the next entry of the same kind and device; 0 when there is none."""
    entry = log[index]
    for other in range(index + 1, len(log)):
        if type(log[other]) is type(entry) and log[other].device == entry.device:
            return other
    return 0


@pytest.mark.slow
@given(st.integers(0, 2**32), st.integers(0, 300))
@settings(max_examples=40)
def test_a_sound_log_has_no_violation(seed: int, steps: int) -> None:
    """A server that keeps every promise is found to do so, crashes and repeats included."""
    assert check(sound(seed, steps)).violations == []


def test_the_report_counts() -> None:
    """Attempts, confirmed messages, redeliveries and acks that a crash took are counted."""
    reports = [check(sound(seed)) for seed in SEEDS]
    assert all(report.confirmed and report.sent > report.confirmed for report in reports)
    assert all(report.delivered >= report.confirmed for report in reports)
    assert sum(report.redelivered for report in reports) > 0
    assert sum(report.lost_acks for report in reports) > 0
    assert all(report.lowest == 1 and report.highest >= report.confirmed for report in reports)


def assert_caught(log: list[Entry], what: str) -> None:
    assert check(log).violations, f"not caught: {what}"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_dropped_entry_is_caught(seed: int) -> None:
    """No entry can be left out: what a client did or saw once has its traces elsewhere."""
    log = sound(seed)
    for index, entry in enumerate(log):
        if isinstance(entry, MUTABLE) and not leaves_a_sound_log(log, index):
            assert_caught(log[:index] + log[index + 1 :], f"without {entry}")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_doubled_entry_is_caught(seed: int) -> None:
    """Nothing happens twice: no confirmation, delivery, ack or outcome."""
    log = sound(seed)
    for index, entry in enumerate(log):
        if isinstance(entry, MUTABLE):
            assert_caught([*log[:index], entry, *log[index:]], f"twice {entry}")


@pytest.mark.parametrize("seed", SEEDS)
def test_swapped_entries_are_caught(seed: int) -> None:
    """Two things of one kind on one device have an order."""
    log = sound(seed)
    for index, entry in enumerate(log):
        other = next_of_kind(log, index)
        if isinstance(entry, MUTABLE) and other:
            swapped = log.copy()
            swapped[index], swapped[other] = swapped[other], swapped[index]
            assert_caught(swapped, f"{entry} for {log[other]}")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_changed_entry_is_caught(seed: int) -> None:
    """Every field of every entry matters."""
    log = sound(seed)
    for index, entry in enumerate(log):
        if isinstance(entry, MUTABLE):
            for changed in changes(log, index):
                assert_caught([*log[:index], changed, *log[index + 1 :]], f"{changed} for {entry}")


def two() -> list[Entry]:
    return [Resumed("a", 1, "a", 0, 0, 0), Resumed("b", 1, "b", 0, 0, 0)]


def end(*lasts: int) -> list[Entry]:
    names = zip(("a", "b"), lasts, strict=True)
    return [Resumed(name, 2, name, 0, last, 0) for name, last in names]


def test_an_unknown_message_may_arrive_once() -> None:
    """A message whose confirmation never came is found with one msgId, or not at all."""
    sent: list[Entry] = [Sent("a", 1, "c1", "b", "x"), Answered("a", 1, "c1", "unknown")]
    once: list[Entry] = [Delivered("b", 1, 1, 7, "a", "b", "x"), Acked("b", 1, 1)]
    twice: list[Entry] = [Delivered("b", 1, 2, 8, "a", "b", "x"), Acked("b", 1, 2)]
    assert check([*two(), *sent, *end(0, 0)]).violations == []
    assert check([*two(), *sent, *once, *end(0, 1)]).violations == []
    [violation] = check([*two(), *sent, *once, *twice, *end(0, 2)]).violations
    assert violation.startswith("I2")


def test_a_refused_message_never_arrives() -> None:
    """What was refused is nowhere."""
    sent: list[Entry] = [Sent("a", 1, "c1", "b", "x"), Answered("a", 1, "c1", "refused")]
    got: list[Entry] = [Delivered("b", 1, 1, 7, "a", "b", "x"), Acked("b", 1, 1)]
    [violation] = check([*two(), *sent, *got, *end(0, 1)]).violations
    assert violation.startswith("I2")


def test_other_devices_of_the_sender_get_copies() -> None:
    """A confirmed message must reach the sender's other devices, and not the one that sent it."""
    log: list[Entry] = [*two(), Resumed("a2", 1, "a", 0, 0, 0)]
    log += [Sent("a", 1, "c1", "b", "x"), Answered("a", 1, "c1", "confirmed", 7)]
    for device in ("b", "a2"):
        log += [Delivered(device, 1, 1, 7, "a", "b", "x"), Acked(device, 1, 1), Fenced(device, 1)]
    closed = [*log, *end(0, 1), Resumed("a2", 2, "a", 0, 1, 0)]
    assert check(closed).violations == []
    missing = [entry for entry in closed if entry.device != "a2" or isinstance(entry, Resumed)]
    missing[-1] = Resumed("a2", 2, "a", 0, 0, 0)
    [violation] = check(missing).violations
    assert violation.startswith("I1")
    own: list[Entry] = [Delivered("a", 1, 1, 7, "a", "b", "x"), Acked("a", 1, 1)]
    [violation] = check([*log, *own, *end(1, 1), Resumed("a2", 2, "a", 0, 1, 0)]).violations
    assert violation.startswith("I6")


def test_durable_acks_hold() -> None:
    """What was acked before a command was answered never returns; other acks may be lost."""
    log: list[Entry] = [
        *two(),
        Sent("a", 1, "c1", "b", "x"),
        Answered("a", 1, "c1", "confirmed", 7),
    ]
    log += [Delivered("b", 1, 1, 7, "a", "b", "x"), Acked("b", 1, 1)]
    again: list[Entry] = [
        Resumed("b", 2, "b", 1, 1, 1),
        Delivered("b", 2, 1, 7, "a", "b", "x"),
        Acked("b", 2, 1),
        Resumed("b", 3, "b", 0, 1, 0),
        Resumed("a", 2, "a", 0, 0, 0),
    ]
    report = check([*log, *again])
    assert (report.violations, report.lost_acks, report.redelivered) == ([], 1, 1)
    violations = check([*log, Fenced("b", 1), *again]).violations
    assert {violation[:2] for violation in violations} == {"I5"}


# --- groups, and devices that are signed out ---------------------------------------------------

GROUPS = {"g": ("a", "b", "c")}


def in_group(*changes: Entry, last: int = 1, without: int = -1) -> list[str]:
    """What is found when a writes to a group of a, b and c; b is signed out, and b2 comes."""
    log: list[Entry] = [
        *(Resumed(user, 1, user, 0, 0, 0) for user in "abc"),
        Sent("a", 1, "c1", "g", "hi"),
        Answered("a", 1, "c1", "confirmed", 1),
        Delivered("c", 1, 1, 1, "a", "g", "hi"),
        Acked("c", 1, 1),
        Left("b", 1),
        Resumed("b2", 1, "b", 1, 1, 1),
        Delivered("b2", 1, 1, 1, "a", "g", "hi"),
        Acked("b2", 1, 1),
        *changes,
        Resumed("a", 2, "a", 0, 0, 0),
        Resumed("b2", 2, "b", 0, last, 0),
        Resumed("c", 2, "c", 0, last, 0),
    ]
    if without >= 0:
        del log[without]
    return check(log, GROUPS).violations


def test_a_group_is_told() -> None:
    """All but the sender get it; of a device that left, the next one does."""
    assert in_group() == []


@pytest.mark.parametrize("missing", [5, 9])
def test_a_member_that_gets_nothing_is_found(missing: int) -> None:
    """Also one whose device left."""
    assert any(text.startswith("I1") for text in in_group(without=missing))


def test_nobody_else_gets_what_is_for_a_group() -> None:
    """A delivery to somebody who is not in it is found."""
    log = [Resumed("d", 1, "d", 0, 0, 0), Delivered("d", 1, 1, 1, "a", "g", "hi")]
    assert any(text.startswith("I6") for text in in_group(*log))


def test_what_was_sent_after_a_device_left_is_not_for_it() -> None:
    """Nobody waits for it then."""
    late = [Sent("a", 1, "c2", "g", "ho"), Answered("a", 1, "c2", "confirmed", 2)]
    heard = [Delivered(name, 1, 2, 2, "a", "g", "ho") for name in ("b2", "c")]
    acked = [Acked(name, 1, 2) for name in ("b2", "c")]
    assert in_group(*late, *heard, *acked, last=2) == []


@pytest.mark.parametrize("by", ["a", "b"])
def test_who_recalls_has_no_notice_of_it(by: str) -> None:
    """A device that recalls is not told so; its user's next one need not be, the others must."""
    event = Event("recalled", by=by, value="1")
    seen = ("", "a", "A message was recalled.", 0, event)
    log: list[Entry] = [
        Starting("a", "a"),
        Resumed("a", 1, "a", 0, 0, 0),
        Resumed("b", 1, "b", 0, 0, 0),
        Sent(by, 1, "c1", "ba".replace(by, ""), "x"),
        Answered(by, 1, "c1", "confirmed", 1),
        Asked(by, 1, "recall", "1"),
        Told(by, 1, "recall", "ok"),
        Left("a", 1),
        Starting("a2", "a"),
        Resumed("a2", 1, "a", 0, 0, 0),
        Found("a2", 1, 2, *seen),
        Resumed("a2", 2, "a", 0, 0, 0),
    ]
    told = [text for text in check(log).violations if text.startswith("I1: a never got 2")]
    assert bool(told) == (by == "b")
