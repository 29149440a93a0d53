"""The outbox under random interleavings: nothing lost, repeated, reordered, or beyond the window.

`World` is all that stands around one device's outbox: the stored queue with its commits, the
loop that offers what was committed (later, in commit order), a store that reads pages slowly (a
page is asked for, read and taken in at three moments), a client that checks every packet it gets,
and connections that break. It takes the outbox class as an argument, so that outboxes with known
bugs can be put in it: a test that does not find those would prove nothing about the real one.
"""

import json
import random
from collections import deque
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pushd.outbox import Entry, Outbox, with_seq
from pushd.store.records import rest_of, whole

MAX_COUNT = 5
MAX_BYTES = 240
PACKET = 150
STUB = b'"recalled":true}'


class Row:
    """A message of the stored queue."""

    def __init__(self, seq: int, size: int) -> None:
        self.seq = seq
        self.msg_id = 1000 + seq
        self.data = with_seq(seq, b'"text":"%b"}' % (b"x" * size))

    def recall(self) -> None:
        """Replace the text by a stub, as the store does when a recall is committed."""
        self.data = with_seq(self.seq, STUB)

    @property
    def entry(self) -> Entry:
        """The row as a page or an offer carries it."""
        return self.seq, self.msg_id, self.data


class World:
    """One device, its queue and its client; every verb is a thing that may happen at any time."""

    def __init__(self, outbox_class: type[Outbox], backlog: int = 0) -> None:
        self._class = outbox_class
        self.rows = [Row(seq, 10) for seq in range(1, backlog + 1)]
        self.tellings: deque[Callable[[], object]] = deque()  # committed, not told to the outbox
        self.stored_ack = 0  # up to where the store knows the device to have acked
        self.acks: deque[int] = deque()  # acks that are not committed yet
        self.recalled: set[int] = set()  # seqs whose recall the outbox has been told of
        self.asked: list[tuple[int, int, int, int]] = []  # bounds and room of the page asked for
        self.page: list[Entry] | None = None  # the page that was read and not taken in
        self.packets: deque[list[tuple[int, int]]] = deque()  # in flight: seqs and sizes
        self.received = 0  # highest seq that the client has on this connection
        self.outbox = self._new_outbox()

    # What happens on the way from the writer to the outbox

    def commit(self, size: int) -> None:
        """Commit a message; some are told without their data and must be read."""
        row = Row(len(self.rows) + 1, size * 3)
        self.rows.append(row)
        seq, msg_id, data = row.entry
        known = None if size % 11 == 10 else data
        self.tellings.append(lambda: self.outbox.offer(seq, msg_id, known))

    def recall(self, back: int) -> None:
        """Commit the recall of one of the newest messages."""
        if not self.rows:
            return
        row = self.rows[-1 - back % min(len(self.rows), 8)]
        row.recall()

        def tell() -> None:
            self.outbox.replace(row.msg_id, STUB)
            self.recalled.add(row.seq)

        self.tellings.append(tell)

    def tell(self, count: int) -> None:
        """Tell the outbox of some commits, in their order."""
        for _ in range(min(count % 4 + 1, len(self.tellings))):
            self.tellings.popleft()()

    # What happens to a page

    def ask(self, _: int) -> None:
        """Ask the store for a page if the outbox wants one."""
        if not self.asked and self.outbox.wants_page:
            room, room_bytes = self.outbox.room, self.outbox.room_bytes
            self.asked.append((*self.outbox.begin_page(), room, room_bytes))

    def read(self, limit: int) -> None:
        """Read the page that was asked for; it may hold fewer rows than there is room for."""
        if not self.asked or self.page is not None:
            return
        after, upto, room, room_bytes = self.asked[0]
        self.page = []
        for row in self.rows[after:upto][: min(room, limit % MAX_COUNT + 1)]:
            if self.page and sum(len(data) for _, _, data in self.page) >= room_bytes:
                break
            self.page.append(row.entry)

    def take_in(self, chance: int) -> None:
        """Hand the page that was read to the outbox; sometimes the reading fails."""
        if self.page is None:
            return
        page, self.page = self.page, None
        self.asked.clear()
        if chance % 7 == 6:
            self.outbox.abandon_page()
        else:
            self.outbox.end_page(page)

    # What happens on the wire

    def send(self, _: int) -> None:
        """Write a packet, and let the client check it."""
        packet = self.outbox.next_packet(PACKET)
        if packet is None:
            return
        assert packet, "an empty packet"
        assert len(packet) == 1 or len(b",".join(packet)) <= PACKET, "a packet is too large"
        self.packets.append([self._receive(data) for data in packet])
        flight = [row for sent in self.packets for row in sent]
        held = sum(size for _, size in flight)
        assert len(flight) <= MAX_COUNT, "too many in flight"
        assert len(flight) == 1 or held <= MAX_BYTES, "too many bytes in flight"

    def _receive(self, data: bytes) -> tuple[int, int]:
        message = json.loads(data)
        assert message["seq"] == self.received + 1, "lost, repeated or out of order"
        assert "text" not in message or message["seq"] not in self.recalled, "a recalled text"
        self.received += 1
        return self.received, len(data)

    def ack(self, _: int) -> None:
        """Ack the oldest packet that is not acked, if there is one."""
        acked = self.outbox.ack_packet()
        assert acked == (self._ids(self.packets[0][-1][0]) if self.packets else None)
        if acked:
            self.packets.popleft()
            self.acks.append(acked[0])

    def ack_upto(self, distance: int) -> None:
        """Ack up to a seq that may be stale, in the middle of a packet, or not sent yet."""
        seq = self.received + 2 - distance % 10
        flight = [one for packet in self.packets for one, _ in packet if one <= seq]
        acked = self.outbox.ack_upto(seq)
        assert acked == (self._ids(flight[-1]) if flight else None)
        if acked:
            left = [[row for row in packet if row[0] > seq] for packet in self.packets]
            self.packets = deque(packet for packet in left if packet)
            self.acks.append(acked[0])

    def _ids(self, seq: int) -> tuple[int, int]:
        return self.rows[seq - 1].seq, self.rows[seq - 1].msg_id

    def commit_acks(self, count: int) -> None:
        """Commit the oldest acks."""
        for _ in range(min(count % 3 + 1, len(self.acks))):
            self.stored_ack = max(self.stored_ack, self.acks.popleft())

    def connect(self, _: int) -> None:
        """Lose the connection with all that is not committed, and take the device up again.

        What the new outbox sees as newest may or may not have been told to the old one.
        """
        self.asked.clear()
        self.page = None
        self.packets.clear()
        self.acks.clear()
        self.received = self.stored_ack
        self.outbox = self._new_outbox()

    def _new_outbox(self) -> Outbox:
        newest = len(self.rows)
        return self._class(self.stored_ack, newest, max_count=MAX_COUNT, max_bytes=MAX_BYTES)

    # Rules

    def check(self) -> None:
        """Prove what must hold at every moment."""
        outbox = self.outbox
        largest = max((len(row.data) for row in self.rows), default=0)
        assert 0 <= outbox.room <= MAX_COUNT, "more is held than the window"
        assert outbox.room_bytes > -2 * largest, "more bytes are held than the window"
        assert self.received <= outbox.last <= outbox.newest <= len(self.rows)
        assert outbox.lagging or outbox.last == outbox.newest, "something would never be sent"

    def settle(self) -> None:
        """Let everything take its course; all that was committed must have arrived, and soon."""
        verbs = (self.tell, self.ask, self.read, self.take_in, self.send, self.ack)
        for _ in range(20 + 3 * len(self.rows) + len(self.tellings)):
            for verb in verbs:
                verb(4)
                self.check()
        assert self.received == len(self.rows), "something was never sent"
        assert self.outbox.idle and not self.outbox.lagging and not self.outbox.wants_page
        assert self.outbox.room == MAX_COUNT and self.outbox.room_bytes == MAX_BYTES


# Commits, and what makes the outbox see them, are most of what happens.
VERBS = (
    World.commit,
    World.commit,
    World.tell,
    World.tell,
    World.ask,
    World.ask,
    World.read,
    World.read,
    World.take_in,
    World.take_in,
    World.send,
    World.send,
    World.ack,
    World.ack_upto,
    World.commit_acks,
    World.recall,
)
RARE = World.connect

Steps = list[tuple[Callable[[World, int], None], int]]
steps = st.lists(
    st.tuples(st.sampled_from((*VERBS, RARE)), st.integers(0, 41)), min_size=10, max_size=120
)


def run(outbox_class: type[Outbox], backlog: int, steps: Steps) -> None:
    """Let the steps happen to a fresh world, then let it settle."""
    world = World(outbox_class, backlog)
    for verb, number in steps:
        verb(world, number)
        world.check()
    world.settle()


def random_steps(seed: int) -> Steps:
    """Return a run of 160 steps that depends on nothing but the seed.

    In each stretch of it one verb does not happen: a client that does not ack, a store that does
    not answer, a loop that is behind.
    """
    chance = random.Random(seed)
    steps: Steps = []
    for _ in range(4):
        absent = chance.choice(VERBS)
        verbs = [verb for verb in VERBS if verb is not absent]
        for _ in range(40):
            verb = chance.choice(verbs) if chance.random() < 0.99 else RARE
            steps.append((verb, chance.randrange(42)))
    return steps


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 12), steps)
def test_any_interleaving(backlog: int, steps: Steps) -> None:
    """Whatever happens in whatever order: all arrives once, in order, within the window."""
    run(Outbox, backlog, steps)


@pytest.mark.slow
def test_long_runs() -> None:
    """The same holds in runs that are longer than those which Hypothesis makes."""
    for seed in range(300):
        run(Outbox, seed % 13, random_steps(seed))


# Outboxes with known bugs


class ShortPageEndsLag(Outbox):
    """Stops lagging when a page comes back short, though more was committed since."""

    def begin_page(self) -> tuple[int, int]:
        self.wanted = self.room
        return super().begin_page()

    def end_page(self, entries: Iterable[Entry]) -> None:
        page = list(entries)
        super().end_page(page)
        if len(page) < self.wanted:
            self.lagging = False


class PageEndsLag(Outbox):
    """Stops lagging after any page."""

    def end_page(self, entries: Iterable[Entry]) -> None:
        super().end_page(entries)
        self.lagging = False


class PageWithoutEnd(Outbox):
    """Reads what is committed but not offered, and takes it in again when it is offered."""

    def begin_page(self) -> tuple[int, int]:
        return super().begin_page()[0], 2**53


class Overtaking(Outbox):
    """Takes live messages in before those that wait in the store."""

    def offer(self, seq: int, msg_id: int, data: bytes | None) -> bool:
        lagging, self.lagging = self.lagging, False
        taken = super().offer(seq, msg_id, data)
        self.lagging |= lagging
        return taken


class DropsWhenFull(Outbox):
    """Forgets that a message did not fit."""

    def offer(self, seq: int, msg_id: int, data: bytes | None) -> bool:
        if self.room <= 0:
            self.newest = max(self.newest, seq)
            return False
        return super().offer(seq, msg_id, data)


class DropsWithoutData(Outbox):
    """Forgets a message that can only be read from the store."""

    def offer(self, seq: int, msg_id: int, data: bytes | None) -> bool:
        return data is not None and super().offer(seq, msg_id, data)


class BlindWhileLagging(Outbox):
    """Does not note what is offered while it lags."""

    def offer(self, seq: int, msg_id: int, data: bytes | None) -> bool:
        return not self.lagging and super().offer(seq, msg_id, data)


class StartsCaughtUp(Outbox):
    """Takes a new connection for one without a backlog."""

    def __init__(self, acked: int, newest: int, *, max_count: int, max_bytes: int) -> None:
        super().__init__(acked, newest, max_count=max_count, max_bytes=max_bytes)
        self.lagging = False


class NeverReadsAgain(Outbox):
    """Does not want a page again that could not be read."""

    def abandon_page(self) -> None:
        pass


class Unbounded(Outbox):
    """Takes in whatever comes."""

    @property
    def room(self) -> int:
        return self._max_count


class SendsAll(Outbox):
    """Writes all it holds, whatever its size."""

    def next_packet(self, limit: int) -> list[bytes] | None:
        self._max_bytes, kept = 2**53, self._max_bytes
        try:
            return super().next_packet(limit)
        finally:
            self._max_bytes = kept


class IgnoresPacketLimit(Outbox):
    """Makes packets that are too large."""

    def next_packet(self, limit: int) -> list[bytes] | None:
        return super().next_packet(limit + 100)


class AcksOne(Outbox):
    """Acks one message instead of one packet."""

    def ack_packet(self) -> tuple[int, int] | None:
        return self._release(1) if self._flight else None


class AcksUnsent(Outbox):
    """Believes an ack of what was not sent yet."""

    def ack_upto(self, seq: int) -> tuple[int, int] | None:
        super().ack_upto(seq)
        return seq, 1000 + seq


class KeepsRecalled(Outbox):
    """Sends a text after its recall."""

    def replace(self, msg_id: int, data: bytes) -> None:
        pass


class LosesCount(Outbox):
    """Does not count the bytes that a stub saves."""

    def replace(self, msg_id: int, data: bytes) -> None:
        held = self._bytes
        super().replace(msg_id, data)
        self._bytes = held


BUGS = [
    ShortPageEndsLag,
    PageEndsLag,
    PageWithoutEnd,
    Overtaking,
    DropsWhenFull,
    DropsWithoutData,
    BlindWhileLagging,
    StartsCaughtUp,
    NeverReadsAgain,
    Unbounded,
    SendsAll,
    IgnoresPacketLimit,
    AcksOne,
    AcksUnsent,
    KeepsRecalled,
    LosesCount,
]


@pytest.mark.parametrize("broken", BUGS)
def test_known_bugs_are_found(broken: type[Outbox]) -> None:
    """The same runs, in which the real outbox holds, break one that has a known bug."""
    with pytest.raises(AssertionError):
        for seed in range(100):
            run(broken, seed % 13, random_steps(seed))


# Single rules


def outbox(max_count: int = 256, max_bytes: int = 1 << 20) -> Outbox:
    """Return the outbox of a device without a backlog."""
    return Outbox(0, 0, max_count=max_count, max_bytes=max_bytes)


def test_one_message_always_fits() -> None:
    """A message larger than window and packet goes alone, and waits for what is in flight."""
    box = outbox(max_bytes=10)
    assert box.offer(1, 1, b"small") and box.offer(2, 2, b"x" * 100)
    assert box.next_packet(5) == [b"small"]
    assert box.next_packet(5) is None
    assert box.ack_packet() == (1, 1)
    assert box.next_packet(5) == [b"x" * 100]


def test_acks_without_packets() -> None:
    """A superfluous, stale or too high ack acks at most what was sent."""
    box = outbox()
    assert box.ack_packet() is None and box.ack_upto(99) is None
    for seq in (1, 2, 3):
        box.offer(seq, 10 * seq, b"data")
    assert box.ack_upto(99) is None
    box.next_packet(9)
    assert box.ack_upto(99) == (1, 10)
    assert box.ack_upto(1) is None


def test_ack_in_the_middle_of_a_packet() -> None:
    """What is left of a packet is still one packet to the next plain ack."""
    box = outbox()
    for seq in range(1, 7):
        box.offer(seq, seq, b"data")
    box.next_packet(15)
    box.next_packet(15)
    assert box.ack_upto(2) == (2, 2)
    assert box.ack_packet() == (3, 3)
    assert box.ack_packet() == (6, 6)
    assert box.ack_packet() is None


def test_offered_twice() -> None:
    """What a new connection saw as newest may be offered to it as well, and is taken in once."""
    box = Outbox(0, 2, max_count=10, max_bytes=100)
    assert not box.offer(2, 2, b"two")
    assert box.begin_page() == (0, 2)
    box.end_page([(1, 1, b"one"), (2, 2, b"two")])
    assert not box.offer(2, 2, b"two") and box.offer(3, 3, b"three")
    assert box.next_packet(100) == [b"one", b"two", b"three"]


def test_recall_before_sending() -> None:
    """A stub takes the place of what waits, and of what is on its way from the store."""
    box = Outbox(0, 1, max_count=10, max_bytes=100)
    box.begin_page()
    box.replace(1, STUB)
    box.end_page([(1, 1, with_seq(1, b'"text":"old"}'))])
    box.offer(2, 2, with_seq(2, b'"text":"new"}'))
    box.replace(2, STUB)
    assert box.next_packet(100) == [with_seq(1, STUB), with_seq(2, STUB)]
    box.ack_packet()
    assert box.room == 10 and box.room_bytes == 100


def test_state_is_shown() -> None:
    """The log shows counts and seqs of an outbox, never what is in it."""
    box = outbox()
    box.offer(1, 1, b"secret")
    assert "last=1" in repr(box) and "1 pending" in repr(box) and "secret" not in repr(box)


def test_a_page_says_what_live_delivery_says() -> None:
    """A message is the same bytes for a device, however it comes to it."""
    body, date = (
        '"chatId":"1-2","info":[{"category":"0","content":"ä"}]'.encode(),
        "2026-01-02T03:04:05",
    )
    live = with_seq(7, rest_of(9, body, date, 1_767_323_045_678))
    assert whole(7, 9, body, date, 1_767_323_045_678) == live
