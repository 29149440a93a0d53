"""One device's bounded window onto its stored queue; no I/O.

The stored queue is the truth. The outbox holds what was taken in from it and is not acked yet:
first `pending` (not written), then `in flight` (written, not acked), never more than a window.

    last     the highest seq taken in, from a live offer or from a page
    newest   the highest seq that is committed and was offered
    lagging  something up to `newest` is only in the store; live offers are not taken in

Offers and pages meet here: backlog, slow peer and live delivery are one mechanism. The rule that
makes it right: lagging ends only when `last == newest`, never because a page came back short
(rows may have been committed after the page was read).
"""

from collections.abc import Sequence

# One message of the queue: its seq, its msgId, and its JSON with the seq in it.
Entry = tuple[int, int, bytes]

# The bytes of a packet around its messages, and between two of them.
COMMA = 1


class Outbox:
    """Hold the window of one device; `max_count` messages or `max_bytes`, always one message."""

    __slots__ = (
        "_bytes",
        "_flight",
        "_flight_bytes",
        "_max_bytes",
        "_max_count",
        "_pending",
        "_stubs",
        "lagging",
        "last",
        "newest",
        "reading",
    )

    def __init__(self, acked: int, newest: int, *, max_count: int, max_bytes: int) -> None:
        self.last = acked  # highest seq taken in
        self.newest = newest  # highest seq committed and offered
        self.lagging = newest > acked  # the store holds more than was taken in
        self.reading = False  # a page is being read
        self._pending: list[Entry] = []  # taken in, not written
        self._flight: list[tuple[int, int, int, bool]] = []  # seq, msgId, bytes, ends a packet
        self._stubs: dict[int, bytes] | None = None  # recalled while a page is being read
        self._bytes = 0  # bytes of pending and in flight together
        self._flight_bytes = 0  # bytes in flight
        self._max_count = max_count
        self._max_bytes = max_bytes

    def __repr__(self) -> str:
        held = f"{len(self._pending)} pending, {len(self._flight)} in flight"
        return f"<Outbox last={self.last} newest={self.newest} lagging={self.lagging} {held}>"

    @property
    def room(self) -> int:
        """How many messages may still be taken in; 0 when the window is full."""
        if self._bytes >= self._max_bytes:
            return 0
        return self._max_count - len(self._pending) - len(self._flight)

    @property
    def room_bytes(self) -> int:
        """How many bytes may still be taken in; a page may pass it by one message."""
        return self._max_bytes - self._bytes

    @property
    def wants_page(self) -> bool:
        """True when the store holds more, there is room for it, and no page is being read."""
        return self.lagging and not self.reading and self.room > 0

    @property
    def unacked(self) -> int:
        """How many messages the device has not acked, those that only the store holds included."""
        return self.newest - self.last + len(self._pending) + len(self._flight)

    @property
    def held(self) -> tuple[int, int]:
        """How many messages are not written yet, and how many are not acked yet."""
        return len(self._pending), len(self._flight)

    @property
    def idle(self) -> bool:
        """True when nothing waits to be written."""
        return not self._pending

    def resize(self, max_count: int, max_bytes: int) -> None:
        """Change the window; a smaller one takes nothing in until it has room again."""
        self._max_count = max_count
        self._max_bytes = max_bytes

    def offer(self, seq: int, msg_id: int, data: bytes | None) -> bool:
        """Take a committed message in if the window allows; else it will be read from the store.

        The caller offers every message of the device once, in commit order. `None` for the data
        means that it can only be read from the store. Returns whether it was taken in.
        """
        if seq <= self.newest:
            return False
        self.newest = seq
        if self.lagging:
            return False
        held = len(self._pending) + len(self._flight)
        if data is None or held >= self._max_count or self._bytes >= self._max_bytes:
            self.lagging = True
            return False
        self._take(seq, msg_id, data)
        return True

    def begin_page(self) -> tuple[int, int]:
        """Start reading a page; returns the bounds: after the first seq, up to the second."""
        self.reading = True
        return self.last, self.newest

    def end_page(self, entries: Sequence[Entry]) -> None:
        """Take a page in; the entries follow `last` in order and stay within the bounds asked."""
        self.reading = False
        stubs, self._stubs = self._stubs, None
        if stubs:
            entries = [
                (seq, msg_id, with_seq(seq, stubs[msg_id]) if msg_id in stubs else data)
                for seq, msg_id, data in entries
            ]
        for seq, _, data in entries:
            assert seq > self.last, "the queue went backwards"
            self.last = seq
            self._bytes += len(data)
        self._pending += entries
        if self.last >= self.newest:
            self.lagging = False

    def abandon_page(self) -> None:
        """Note that the page could not be read; it is still wanted."""
        self.reading = False
        self._stubs = None

    def next_packet(self, limit: int) -> list[bytes] | None:
        """Move messages into flight: one packet of at most `limit` bytes, or one larger message."""
        pending = self._pending
        size = 0
        count = 0
        # One larger message may leave where nothing is in flight.
        room = self._max_bytes - self._flight_bytes
        first = not self._flight
        for _, _, data in pending:
            more = len(data)
            if count and size + count * COMMA + more + COMMA > limit:
                break
            if size + more > room and not (first and not count):
                break
            size += more
            count += 1
        if not count:
            return None
        taken = pending[:count]
        del pending[:count]
        flight = self._flight
        flight += [(seq, msg_id, len(data), False) for seq, msg_id, data in taken]
        flight[-1] = (*flight[-1][:3], True)
        self._flight_bytes += size
        return [entry[2] for entry in taken]

    def span(self, count: int) -> tuple[int, int]:
        """Give the first and the last msgId of the packet of so many that was taken last.

        A gap at its front may have a newer msgId than what follows: then the first one is 0.
        """
        first, last = self._flight[-count][1], self._flight[-1][1]
        return (first if first <= last else 0), last

    def ack_packet(self) -> tuple[int, int] | None:
        """Ack the oldest packet in flight; returns the last seq and msgId of it, or None."""
        for index, entry in enumerate(self._flight):
            if entry[3]:
                return self._release(index + 1)
        return None

    def ack_upto(self, seq: int) -> tuple[int, int] | None:
        """Ack all in flight up to `seq`; returns the last seq and msgId acked, or None."""
        count = 0
        for entry in self._flight:
            if entry[0] > seq:
                break
            count += 1
        return self._release(count) if count else None

    def replace(self, msg_id: int, data: bytes) -> None:
        """Put a stub in the place of a recalled message that is not written yet.

        `data` is the stub without its seq: what follows `{"seq":n,`. A page that was read before
        the recall and comes in after it gets its stub as well.
        """
        if self.reading:
            self._stubs = {**(self._stubs or {}), msg_id: data}
        for index, (seq, known, old) in enumerate(self._pending):
            if known == msg_id:
                stub = with_seq(seq, data)
                self._pending[index] = (seq, known, stub)
                self._bytes += len(stub) - len(old)

    def _take(self, seq: int, msg_id: int, data: bytes) -> None:
        assert seq > self.last, "the queue went backwards"
        self.last = seq
        self._pending.append((seq, msg_id, data))
        self._bytes += len(data)

    def _release(self, count: int) -> tuple[int, int]:
        flight = self._flight
        seq, msg_id = flight[count - 1][:2]
        freed = sum(entry[2] for entry in flight[:count])
        self._bytes -= freed
        self._flight_bytes -= freed
        del flight[:count]
        return seq, msg_id


def with_seq(seq: int, rest: bytes) -> bytes:
    """Splice the seq of a device into a message that was encoded once for all."""
    return b'{"seq":%d,%b' % (seq, rest)
