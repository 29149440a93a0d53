"""What all connections of a server share: the context, the flush of a turn, and the sweep.

Connections that have something to write are flushed once at the end of a turn of the loop. Their
deadlines lie in buckets of a quarter of a second; a bucket is looked at when its time has come,
so an idle connection costs nothing until then.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from .commands import Context, internal_error
from .config import Config
from .draft import Draft
from .errors import Refusal, TooMany
from .limits import Budget, network
from .model import Actor, Failed, MessageType
from .session import GONE, Session
from .status import Status

# Seconds between two sweeps.
SWEEP = 0.25
# Connections of the control socket at a time; they do not count among the others.
MOST_OPERATORS = 32


# What becomes of a login, by the status of its reply; any other is "refused".
LOGINS = {
    int(Status.SUCCESS): "ok",
    int(Status.ERROR_PASSWORD): "wrong_password",
    int(Status.NULL_USER): "unknown_user",
    int(Status.TOO_MANY): "limited",
}


class Stats:
    """Plain counters since the start; read by whoever reports, from any thread.

    Every table is bounded: its keys are kinds, statuses or commands that there are.
    """

    __slots__ = (
        "accepted",
        "acks",
        "bad",
        "bytes_in",
        "bytes_out",
        "closed",
        "commands",
        "confirmed",
        "delivered",
        "failed_handshakes",
        "frames",
        "gates",
        "heartbeats",
        "lists",
        "logins",
        "opened",
        "reads",
        "refusals",
    )

    def __init__(self) -> None:
        self.frames = 0  # lines that were no blank ones
        self.accepted = 0  # connections
        self.opened: Counter[str] = Counter()  # the same by the kind of the listener
        self.closed: Counter[str] = Counter()  # connections that are gone
        self.failed_handshakes = 0  # of TLS, those that took too long among them
        self.bytes_in = 0
        self.bytes_out = 0
        # Lines by what they were
        self.heartbeats = 0
        self.lists = 0
        self.acks = 0  # the "ok" for a packet
        self.reads = 0  # ack objects
        self.bad = 0  # no frame at all
        self.gates: Counter[str] = Counter()  # start and restart
        self.commands: Counter[str] = Counter()  # by name; all that are unknown together
        # Messages
        self.confirmed = 0  # to their senders, repeats included
        self.delivered = 0  # written to devices
        # Outcomes
        self.refusals: Counter[int] = Counter()  # replies by status, success left out
        self.logins: Counter[str] = Counter()  # by outcome, see LOGINS

    def count(self, status: int) -> None:
        """Count a reply; 0 is an empty list and no refusal."""
        if status not in (Status.SUCCESS, Status.FAILURE):
            self.refusals[status] += 1

    def count_command(self, name: str, status: int) -> None:
        """Count a command that was answered; `name` is one of the table, or "unknown"."""
        self.commands[name] += 1
        if name == "login":
            self.logins[LOGINS.get(status, "refused")] += 1


class Peer(Protocol):
    """A connection, as the service sees it."""

    due: int
    kind: str
    session: Session

    def flush(self) -> None:
        """Write what is ready."""

    def check(self, now: float) -> float:
        """Look at the deadlines."""

    def abort(self) -> None:
        """Cut the connection."""

    def refuse_new_work(self) -> None:
        """Answer 5030 to what comes."""

    def shut_down(self) -> None:
        """Write the last frame and close."""

    @property
    def finished(self) -> bool:
        """True when all is answered."""


class Service:
    """The part of a server that its connections use."""

    def __init__(self, ctx: Context, loop: asyncio.AbstractEventLoop) -> None:
        self.ctx = ctx
        self.limits = ctx.config.limits
        self.tracing = False  # every frame is logged
        self.stats = Stats()
        self.connections: set[Peer] = set()
        self._loop = loop
        self._per_address: Counter[str] = Counter()
        self._dirty: list[Peer] = []  # to be flushed at the end of this turn
        self._late: list[Peer] = []  # to be flushed when the others have had their share
        self._flushing = False  # a flush is due
        self._buckets: dict[int, set[Peer]] = {}  # by when to look, in steps of SWEEP
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = 0
        self.operators = 0  # connections of the control socket
        self._messages = Budget(self.limits.messages, 1.0, self.limits.budget_keys)
        self.handshakes = 0  # TLS handshakes in progress, counted as connections
        self.draining = False  # no new connections
        self.lame = False  # clients are sent away one by one, the end follows
        # Packets that were written: device, first and last msgId, when (ms).
        self.sent: deque[tuple[int, int, int, int]] = deque(maxlen=ctx.config.trace.packets)

    def configure(self, settings: Config) -> None:
        """Take over the settings that may change while connections are open."""
        self.limits = settings.limits
        self.tracing = settings.log.level == "debug"
        self._messages.count = settings.limits.messages

    @property
    def saturated(self) -> bool:
        """True when the store should be handed no more."""
        return self.ctx.store.writer.saturated

    @property
    def messages_refused(self) -> int:
        """How often the budget of messages was used up."""
        return self._messages.refused

    def now(self) -> float:
        """Give monotonic seconds."""
        return self.ctx.clock.now()

    def next_number(self) -> int:
        """Number a connection, for logs."""
        self._numbers += 1
        return self._numbers

    def admit(self, peer: Peer) -> Refusal | None:
        """Count a connection; gives why it must go at once, if it must."""
        self.stats.accepted += 1
        self.stats.opened[peer.kind] += 1
        self.connections.add(peer)
        self._per_address[peer.session.network] += 1
        self.operators += peer.session.operator
        refusal = self._refusal(peer)
        if refusal is not None:
            self.stats.count(refusal.status)
        return refusal

    def _refusal(self, peer: Peer) -> Refusal | None:
        if self.draining:
            return Refusal(Status.RESTARTING, retry_after=3)
        if peer.session.operator:
            many = self.operators > MOST_OPERATORS
            return TooMany(1, "too many connections to the control socket") if many else None
        if len(self.connections) - self.operators + self.handshakes > self.limits.connections:
            return TooMany(30, "too many connections")
        most = self.limits.connections_per_address
        if self.limits.per_address and self._per_address[peer.session.network] > most:
            return TooMany(30, "too many connections from this address")
        return None

    def reserve(self, address: str) -> Callable[[], None] | None:
        """Count a TLS handshake as a connection; gives what ends that, None over a limit."""
        counted = network(address)
        crowded = self._per_address[counted] >= self.limits.connections_per_address
        there = len(self.connections) - self.operators + self.handshakes
        full = there >= self.limits.connections
        if self.draining or full or (crowded and self.limits.per_address):
            return None
        self.handshakes += 1
        self._per_address[counted] += 1
        ended = False

        def end() -> None:
            nonlocal ended
            if not ended:
                ended = True
                self.handshakes -= 1
                self._leave_network(counted)

        return end

    def forget(self, peer: Peer) -> None:
        """Forget a connection that is gone."""
        self.leave(peer)
        if peer in self.connections:
            self.connections.remove(peer)
            self.stats.closed[peer.kind] += 1
            self.operators -= peer.session.operator
            self._buckets.get(peer.due, set()).discard(peer)
            self._leave_network(peer.session.network)
            peer.session.link = GONE

    def _leave_network(self, counted: str) -> None:
        self._per_address[counted] -= 1
        if not self._per_address[counted]:
            del self._per_address[counted]

    def leave(self, peer: Peer) -> None:
        """End a connection's session; its device was seen until now."""
        actor: Actor | None = peer.session.actor
        self.ctx.hub.end(peer.session)
        if actor is not None and actor.device:
            self.ctx.store.seen(actor)

    def spend_messages(self, session: Session, drafts: Sequence[Draft | Failed]) -> None:
        """Spend the budgets of messages, if there is one, and of requests; raises TooMany."""
        for draft in drafts:
            if type(draft) is Draft and draft.type == MessageType.REQUEST:
                self.ctx.spend(session, "friend_requests")
        if not self.limits.messages:
            return
        wait = self._messages.take(session.account, self.now(), len(drafts))
        if wait:
            raise TooMany(wait)

    def note_sent(self, device: int, first: int, last: int) -> None:
        """Note that a packet with these msgIds was written to a device."""
        self.sent.append((device, first, last, self.ctx.clock.wall()))

    async def barrier(self, device: int) -> None:
        """Wait until all that was handed in is committed, above all a device's acks."""
        await self.ctx.store.writer.barrier(device)

    def call_soon(self, function: Callable[[], None]) -> None:
        """Call a function in the next turn of the loop."""
        self._loop.call_soon(function)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task of a connection, kept until it ends."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- the end of a turn ----------------------------------------------------------------

    def flush_soon(self, peer: Peer) -> None:
        """Flush a connection at the end of this turn, or of one of the next if much is written."""
        self._dirty.append(peer)
        self._flush_next()

    def flush_later(self, peer: Peer) -> None:
        """Flush a connection that has had its share of this turn, behind all who wait already."""
        self._late.append(peer)
        self._flush_next()

    def _flush_next(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        late, self._late = self._late, []
        fresh, self._dirty = self._dirty, []
        # Each has a share of its own: a short answer does not wait behind a herd.
        left = [*self._flush_some(late), *self._flush_some(fresh)]
        self._late[:0] = left  # before who has had a share
        if self._late:
            self._flush_next()

    def _flush_some(self, peers: list[Peer]) -> list[Peer]:
        """Flush until a turn's share is written; gives who is left."""
        most = self.stats.bytes_out + self.limits.turn
        for count, peer in enumerate(peers):
            if self.stats.bytes_out >= most:
                return peers[count:]
            try:
                peer.flush()
            except Exception as bug:
                # It costs this connection, and none of those behind it.
                internal_error(bug, "flush")
                peer.abort()
        return []

    # --- the sweep ------------------------------------------------------------------------

    def schedule(self, peer: Peer, when: float) -> None:
        """Look at a connection's deadlines then; an earlier look replaces a later one."""
        bucket = int(when / SWEEP) + 1
        if peer.due and self.now() / SWEEP < peer.due <= bucket:
            return
        self._buckets.get(peer.due, set()).discard(peer)
        peer.due = bucket
        self._buckets.setdefault(bucket, set()).add(peer)

    def sweep(self) -> None:
        """Look at the connections whose time has come."""
        now = self.now()
        for bucket in [bucket for bucket in self._buckets if bucket <= now / SWEEP]:
            for peer in self._buckets.pop(bucket):
                if peer.due != bucket:
                    continue
                peer.due = 0
                again = peer.check(now)
                if again:
                    self.schedule(peer, again)

    def abort_later(self, peer: Peer) -> None:
        """Cut a closing connection unless it is gone within the time for draining."""
        self._loop.call_later(self.limits.drain, peer.abort)

    # --- shutting down --------------------------------------------------------------------

    def refuse_new_work(self) -> None:
        """Have every connection answer what it has read, and take no more."""
        self.draining = True
        for peer in tuple(self.connections):
            peer.refuse_new_work()

    @property
    def finished(self) -> bool:
        """True when every connection has answered."""
        return all(peer.finished for peer in self.connections)

    def shut_down(self) -> None:
        """Have every connection say its last frame."""
        for peer in tuple(self.connections):
            peer.shut_down()
