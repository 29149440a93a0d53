"""The named points at which a simulated run may take a rare turn, and where each is hooked in.

A *fault* point is on in a quarter of the runs; where it is passed, it is hit with a chance of its
own. A *path* point only counts that a rare piece of the server's code was taken. None of them is
in the server's code: the points of the network and the disk are in the simulation's own parts,
the others are put around methods of the server by `install`, in the simulation's process alone.
"""

import random
from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any

from pushd.connection import Connection
from pushd.hub import Hub
from pushd.outbox import Outbox
from pushd.session import Session
from pushd.store.indexes import TwoParts
from pushd.store.journal import Journal
from pushd.store.lines import Lines
from pushd.store.messages import Messages
from pushd.store.reserve import Reserve

SHARE = 0.25  # of the runs in which a fault point is on

# Fault points: what happens there, and by default with which chance.
FAULTS = {
    # The process ends (tests.sim.disk.Db)
    "crash_before_commit": "killed before a batch is committed",
    "after_commit_before_reply": "killed when a batch is committed and nobody was told",
    "ack_applied_not_synced": "killed before a batch with acks is committed",
    "power_cut": "power lost after a commit: what was not synced is gone",
    "torn_commit": "power lost during a commit: its sectors are there or not",
    "crash_in_start": "killed while the store is opened or just after",
    # The disk (tests.sim.disk)
    "disk_full": "nothing fits any more, for a while",
    "sync_failed": "a commit fails and is not there",
    "sync_failed_late": "a commit fails and is there all the same",
    "busy": "another program holds the database",
    "bad_statement": "a statement of a batch fails",
    # Threads (tests.sim.disk.SimWorker)
    "slow_commit": "the disk is slow, so operations pile up",
    "late_answer": "what a thread did is known late on the loop",
    "page_read_late": "a page of a queue is read late",
    "page_read_before_offer": "a page of a queue was read, and much is committed before it is used",
    # The network (tests.sim.net)
    "split_read": "the server gets bytes in pieces",
    "short_write": "a phone gets bytes in pieces",
    "late_packet": "a packet is lost and sent again",
    "slow_reader": "a phone stops reading for a while",
    "half_open": "a phone is gone without a word",
    "cut_before_reply": "a connection breaks when its lists are committed and not answered",
    # Phones (tests.sim.phone)
    "takeover_during_replay": "a device comes up elsewhere while its backlog is read",
    "cut_during_replay": "a connection breaks while its backlog is read",
    "retry_elsewhere": "a confirmed message is sent again, perhaps by another device",
    "pipelined_kick": "a member is kicked while they write",
    # The world (tests.sim.world)
    "clock_jump": "the wall clock jumps by up to a day",
    "stop": "the server is asked to stop",
    "small_windows": "windows, packets and queues are small",
    "small_batches": "batches, caches and young parts are small",
}

# Path points: the method that is taken.
PATHS: dict[str, tuple[type, str]] = {
    "batch_split": (Lines, "put_back"),
    "rolled_back": (Journal, "_roll_back"),
    "retried_singly": (Journal, "_commit_one"),
    "gap_opened": (Journal, "_miss"),
    "gap_sealed": (Messages, "seal"),
    "rows_swept": (TwoParts, "_move"),
    "page_taken_in": (Outbox, "end_page"),
    "evicted": (Hub, "_evict"),
    "stub_in_window": (Outbox, "replace"),
    "peer_slow": (Connection, "pause_writing"),
}


class Points:
    """Which points are on in one run, and how often each was hit."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.on = {name: rng.random() < SHARE for name in FAULTS}
        self.quiet = False  # nothing happens any more
        self.hits: Counter[str] = Counter()
        # What the points around methods do: cut and take over connections.
        self.replayed: Callable[[Session, str], None] = lambda session, point: None
        self.disk: Any = None

    def hit(self, name: str, chance: float = 0.1) -> bool:
        """Tell whether what the point is for happens now."""
        if not self.on[name] or self.quiet or self._rng.random() >= chance:
            return False
        self.hits[name] += 1
        return True


ACTIVE: list[Points] = []  # the points of the run that is under way


def install() -> None:
    """Put the points around the server's methods; idempotent."""
    if hasattr(Connection, "simulated"):
        return
    Connection.simulated = True  # type: ignore[attr-defined]
    for name, (owner, method) in PATHS.items():
        setattr(owner, method, _counted(name, getattr(owner, method)))
    # Sets of them must not depend on where they lie in memory.
    Connection.__hash__ = lambda self: self.session.number  # type: ignore[method-assign]
    Session.__hash__ = lambda self: self.number  # type: ignore[method-assign]
    Connection._done = _before_reply(Connection._done)  # type: ignore[method-assign]
    Connection._read_page = _replay(Connection._read_page)  # type: ignore[method-assign]
    Journal._ack = _with_ack(Journal._ack)  # type: ignore[method-assign]
    Reserve._allocate = _allocated(Reserve._allocate)  # type: ignore[method-assign]


def _counted(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def counted(*args: Any, **kw: Any) -> Any:
        for points in ACTIVE:
            points.hits[name] += 1
        return method(*args, **kw)

    return counted


def _before_reply(method: Any) -> Any:
    @wraps(method)
    def done(self: Connection, post: Any) -> None:
        if any(points.hit("cut_before_reply", 0.05) for points in ACTIVE):
            self.transport.abort()
        method(self, post)

    return done


def _replay(method: Any) -> Any:
    @wraps(method)
    async def read_page(self: Connection, session: Session, outbox: Outbox) -> None:
        for points in ACTIVE:
            for point in ("takeover_during_replay", "cut_during_replay"):
                if points.hit(point, 0.2):
                    points.replayed(session, point)
        await method(self, session, outbox)

    return read_page


def _with_ack(method: Any) -> Any:
    @wraps(method)
    def ack(self: Journal, *args: Any) -> None:
        for points in ACTIVE:
            points.disk.acks = True
        method(self, *args)

    return ack


def _allocated(method: Any) -> Any:
    @wraps(method)
    def allocate(self: Reserve) -> bool:
        return not any(points.disk.full for points in ACTIVE) and bool(method(self))

    return allocate
