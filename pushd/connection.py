"""One connection: bytes in, ordered replies and deliveries out; the only room with a transport.

Message lists pipeline, everything else that waits is a barrier. Lists of one read are handed to
the store as one unit, and many units may wait for their commit; replies leave in request order.
A command, `start`, `restart` and an ack object begin when all earlier frames are finished, and
nothing later begins (nor is split) before they are.

    _slots   replies that are not out yet, in request order; a slot without data still waits
    _busy    a barrier is running
    _held    a barrier that waits for the slots before it

There is no task and no timer of its own for an idle connection: the service sweeps deadlines.
All output of a turn of the loop leaves in one write.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

import structlog
from msgspec import UNSET

from . import protocol
from .commands import Reply, answer, internal_error, refused
from .draft import drafts
from .errors import BadField, LineTooLong, PushdError, Refusal
from .handlers.login import GATES
from .handlers.message import mark_read
from .log import PEER
from .model import Accepted, AckIn, Failed, Frame, FrameId, MessageIn
from .outbox import Outbox
from .protocol import Splitter
from .service import Service
from .session import Session, State
from .sockets import listener_kind, peer_address, tune, unheard
from .status import Status
from .store import Post

log = structlog.get_logger("pushd.connection")

# What counts towards the bad lines in a row.
BAD = (int(Status.MALFORMED), int(Status.BAD_FIELD))
# Lines that are handled before other connections have their turn.
LINES_A_TURN = 256
# Seconds between two looks at a long line in progress.
GROWTH_PERIOD = 1.0
RESTARTING = Refusal(Status.RESTARTING, retry_after=3)
SHUTDOWN = protocol.error("", RESTARTING, event={"name": "shutdown"})


class Slot:
    """The place of replies that are not out yet; `bad` says of each whether the line was bad."""

    __slots__ = ("bad", "data")

    def __init__(self) -> None:
        self.data: list[bytes] | None = None
        self.bad: list[bool] = []


class Connection(asyncio.Protocol):
    """The protocol of one client."""

    __slots__ = (
        "_acked",
        "_bad",
        "_bad_waits",
        "_busy",
        "_dirty",
        "_ending",
        "_eof",
        "_final",
        "_gate",
        "_grown",
        "_grown_at",
        "_held",
        "_last_line",
        "_line_since",
        "_lost",
        "_opened",
        "_out",
        "_out_bytes",
        "_paused_at",
        "_pending",
        "_post",
        "_pumping",
        "_reading",
        "_refusing",
        "_service",
        "_shut",
        "_shut_at",
        "_slots",
        "_splitter",
        "_why",
        "_yielding",
        "due",
        "kind",
        "session",
        "transport",
    )

    operator = False  # it belongs to the control socket

    def __init__(self, service: Service) -> None:
        self._service = service
        self._splitter = Splitter()
        self._slots: list[Slot] = []
        self._out: list[bytes] = []  # replies that leave with the next flush
        self._out_bytes = 0  # of these
        self._held: tuple[Frame, bytes] | None = None
        self._busy = False
        self._gate = False  # the barrier is start or restart: no delivery before its reply
        self._post: Post | None = None  # the unit of lists that is still open
        self._pending = 0  # messages of this connection that wait for their commit
        self._acked = False  # acks were handed in since the last barrier
        self._pumping = False  # lines are being handled further up the stack
        self._dirty = False  # it is flushed at the end of this turn
        self._bad = 0  # bad lines in a row
        self._bad_waits = False  # the answer to a bad line is not out yet
        self._yielding = False  # more lines are handled in the next turn
        self._eof = False  # the peer sends no more
        self._refusing = False  # the server is going down
        self._ending = False  # no further line is handled
        self._final = b""  # what leaves last
        self._why = ""  # why it ends, for the log
        self._shut = False  # the last byte was handed to the transport
        self._shut_at = 0.0  # when
        self._lost = False  # the transport is gone
        self._reading = True  # the transport reads
        self._paused_at = 0.0  # since when the peer takes nothing, 0 while it does
        self._opened = 0.0
        self._last_line = 0.0  # when the last complete line came
        self._line_since = 0.0  # when the line in progress began, 0 without one
        self._grown = 0  # its bytes when it was last looked at
        self._grown_at = 0.0
        self.due = 0  # when the sweep looks next
        self.kind = ""  # of the listener it came by
        self.session: Session
        self.transport: asyncio.Transport

    # --- the transport's side -------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; a connection over a limit is told so and closed."""
        self.transport = cast(asyncio.Transport, transport)
        address = peer_address(transport)
        self.kind = "control" if self.operator else listener_kind(transport)
        limits = self._service.limits
        tune(transport, limits.write_timeout)
        self.transport.set_write_buffer_limits(high=limits.packet)
        number = self._service.next_number()
        self.session = Session(number, address, self, limits.heartbeat, operator=self.operator)
        self._opened = self._last_line = self._service.now()
        refusal = self._service.admit(self)
        self._service.schedule(self, self._deadline())
        if refusal is not None:
            log.info("connection refused", connection=number, address=address, why=refusal.message)
            self._finish(protocol.error("", refusal), "refused")
            return
        if self._service.tracing:
            log.debug("connection opened", connection=number, address=address)

    def connection_lost(self, exc: Exception | None) -> None:
        """End; what was confirmed stays, what was not is unknown to the peer."""
        if self._why != "refused":
            session = self.session
            bound = {"device": session.logged_device} if session.logged_device else {}
            log.info(
                "connection closed",
                connection=session.number,
                address=session.address,
                user=session.user,
                **bound,
                reason=self._why or ("reset" if exc else "cut"),
                seconds=round(self._service.now() - self._opened, 1),
            )
        self._shut = self._ending = self._lost = True
        self._slots.clear()
        self._out.clear()
        self._splitter.clear()
        self._service.forget(self)

    def data_received(self, data: bytes) -> None:
        """Take bytes in and handle the lines that are complete."""
        self._service.stats.bytes_in += len(data)
        if self._ending:
            return
        self._splitter.feed(data)
        self._pump()

    def eof_received(self) -> bool:
        """Answer all that was received, then close."""
        self._eof = True
        if self._shut:
            self.transport.close()
            return True
        self._pump()
        return True

    def pause_writing(self) -> None:
        """Stop handling lines and packing deliveries until the peer takes what was written."""
        self._paused_at = self._service.now()
        self._service.schedule(self, self._paused_at + self._service.limits.write_timeout)

    def resume_writing(self) -> None:
        """Go on."""
        self._paused_at = 0.0
        self.wake()
        self._pump()

    # --- lines ----------------------------------------------------------------------------

    @property
    def _blocked(self) -> bool:
        """True when complete lines may lie unhandled."""
        waits = self._busy or self._held or self._paused_at or self._yielding
        return bool(waits) or self._stalled or self._bad_first or self._full

    @property
    def _stalled(self) -> bool:
        limit = self._service.limits.unconfirmed
        if self._slots:
            ready = self._slots[-1].data
            if ready is not None and len(ready) >= limit:
                return True
        return self._pending >= limit or (self._pending > 0 and self._service.saturated)

    @property
    def _full(self) -> bool:
        """True while so much waits for the next flush that nothing more is handled."""
        return self._out_bytes >= self._service.limits.packet

    @property
    def _bad_first(self) -> bool:
        """True while a bad line is not answered: the next one counts only after it."""
        return bool((self._bad or self._bad_waits) and (self._slots or self._post))

    def _pump(self) -> None:
        """Handle lines while nothing is in their way."""
        if self._pumping or self._ending:
            return
        if self._yielding:
            self._regulate()
            return
        self._pumping = True
        try:
            self._handle_lines()
        finally:
            self._pumping = False
        self._regulate()

    def _handle_lines(self) -> None:
        seen = 0
        while not (self._busy or self._ending or self._paused_at or self._full):
            if self._held is not None:
                self._submit()
                if not self._slots:
                    self._begin(*self._held)
                break
            if self._stalled or self._bad_first:
                break
            if seen >= LINES_A_TURN:
                # Others have their turn before the rest of a flood.
                self._yielding = True
                self._service.call_soon(self._go_on)
                break
            line = self._next_line()
            if line is None:
                break
            seen += 1
            self._line(line)
        if seen:
            self._last_line = self._service.now()
            self._line_since = 0.0
        self._submit()
        if self._eof and not self._splitter.waiting and not self._ending and self._finished:
            self._finish(b"", "closed by the peer")

    def _go_on(self) -> None:
        """Handle more lines in the next turn."""
        self._yielding = False
        self._pump()

    @property
    def _finished(self) -> bool:
        return not (self._slots or self._busy or self._held or self._yielding)

    def _next_line(self) -> bytes | None:
        limits = self._service.limits
        known = self.session.actor is not None or self.session.operator
        limit = limits.line if known else limits.line_before_login
        try:
            line = self._splitter.next_line(limit)
            if line is None and self._eof:
                line = self._splitter.rest(limit)
        except LineTooLong as problem:
            self._splitter.clear()
            self._service.stats.bad += 1
            self._service.stats.count(problem.status)
            self._finish(protocol.error(self.session.push_id, problem), "line too long")
            return None
        return line

    def _line(self, line: bytes) -> None:
        """Handle one line."""
        if not line or line.isspace():
            self._bad = 0
            return
        stats = self._service.stats
        stats.frames += 1
        try:
            frame = protocol.decode_frame(line, self._service.limits.messages_per_frame)
        except Refusal as problem:
            stats.bad += 1
            self._refuse(problem.frame_id, problem)
            return
        if not self.session.proven:
            self._prove(frame)
        message = frame.message
        if self._service.tracing:
            self._trace(frame, line)
        if type(message) is list and frame.cmd is UNSET:
            self._list(frame, message)
        elif frame.cmd is not UNSET or isinstance(message, AckIn) or message in GATES:
            self._held = (frame, line)
        elif message == "ok":
            self._ack(frame)
        elif not message:
            stats.heartbeats += 1
            self._reply(protocol.reply(self.session.push_id, "", frame.id))
        else:
            stats.bad += 1
            known = 'message is "", "start", "restart", "ok", a list or an ack'
            self._refuse(frame.id, BadField("message", known))

    def _prove(self, frame: Frame) -> None:
        """Look whether the client of a new device has got to know its pushId."""
        session = self.session
        if session.actor is not None and frame.push_id and frame.push_id == session.push_id:
            session.proven = True
            self._service.ctx.store.prove(session.actor)

    def _trace(self, frame: Frame, line: bytes) -> None:
        """Log what kind of frame came and how long it was; never what is in it."""
        session, message = self.session, frame.message
        known = frame.cmd if frame.cmd in self._service.ctx.table else "unknown command"
        kind = "list" if type(message) is list else "ack" if message == "ok" else "frame"
        if isinstance(message, str) and message in GATES:
            kind = message
        log.debug(
            "frame",
            connection=session.number,
            user=session.user,
            kind=kind if frame.cmd is UNSET else known,
            bytes=len(line),
        )

    def _list(self, frame: Frame, messages: list[MessageIn]) -> None:
        """Add a list to the open unit, or refuse it."""
        session = self.session
        try:
            actor = session.who
            if self._refusing:
                raise RESTARTING
            made = drafts(messages, actor.account, self._service.limits)
            self._service.spend_messages(session, made)
        except Refusal as problem:
            self._service.stats.lists += 1
            self._refuse(frame.id, problem)
            return
        if self._post is None:
            self._post = Post(actor, self._done)
        self._post.add(made, frame.id)
        self._pending += len(made)

    def _submit(self) -> None:
        """Hand the open unit to the store; its replies have their place from now on."""
        post, self._post = self._post, None
        if post is None:
            return
        self._service.stats.lists += len(post.tags)
        post.slot = slot = Slot()
        self._slots.append(slot)
        self._service.ctx.store.post(post)

    def _done(self, post: Post) -> None:
        """Answer a unit whose outcome is durable."""
        self._pending -= post.weight
        if self._shut:
            return
        push_id = self.session.push_id
        stats = self._service.stats
        replies: list[bytes] = []
        bad: list[bool] = []
        if post.error is not None:
            token = PEER.set(self.session)
            problem = _refusal_of(post.error)
            PEER.reset(token)
            stats.refusals[problem.status] += len(post.tags)
            replies = [protocol.error(push_id, problem, tag) for tag in post.tags]
            bad = [False] * len(replies)
        else:
            dates = self._service.ctx.dates
            for tag, results in zip(post.tags, post.results, strict=True):
                first = results[0]
                if type(first) is Accepted:
                    accepted = cast(list[Accepted], results)
                    stats.confirmed += len(accepted)
                    replies.append(protocol.accepted_list(push_id, accepted, tag, dates))
                    bad.append(False)
                else:
                    failures = cast(list[Failed], results)
                    stats.count(failures[0].status)
                    replies.append(protocol.refused_list(push_id, failures, tag))
                    bad.append(failures[0].status in BAD)
        slot = cast(Slot, post.slot)
        slot.data = replies
        slot.bad = bad
        self._emit()
        self._pump()

    def _ack(self, frame: Frame) -> None:
        """Take an ack of a packet: never answered, and never more than was sent here."""
        self._bad = 0
        self._service.stats.acks += 1
        outbox, actor = self.session.outbox, self.session.actor
        if outbox is None or actor is None:
            return
        by_seq = isinstance(frame.seq, int)
        position = outbox.ack_upto(cast(int, frame.seq)) if by_seq else outbox.ack_packet()
        if position is not None:
            self._service.ctx.store.ack(actor, *position)
            self._acked = True
            self.wake()

    # --- barriers -------------------------------------------------------------------------

    def _begin(self, frame: Frame, line: bytes) -> None:
        """Run what nothing may overtake."""
        self._held = None
        self._busy = True
        if frame.cmd is not UNSET:
            work: Coroutine[Any, Any, None] = self._run_command(frame, line)
        elif isinstance(frame.message, AckIn):
            work = self._run_read(frame)
        else:
            self._gate = True
            work = self._run_gate(frame)
        self._service.spawn(work)

    async def _run_command(self, frame: Frame, line: bytes) -> None:
        service = self._service
        PEER.set(self.session)
        had_login = self.session.actor is not None
        try:
            if self._refusing:
                raise RESTARTING
            if self._acked:
                # The reply to a command says that the acks before it are committed.
                await service.barrier(self.session.device)
                self._acked = False
            reply = await answer(service.ctx, self.session, frame, line)
        except PushdError as problem:
            reply = refused(service.ctx, frame, problem)
        except Exception as bug:
            reply = refused(service.ctx, frame, internal_error(bug, "command"))
        if had_login and self.session.state is State.ANONYMOUS:
            # As before a login, with the time that one has then.
            self._opened = service.now()
            service.schedule(self, self._deadline())
        name = frame.cmd if frame.cmd in service.ctx.table else "unknown"
        service.stats.count_command(cast(str, name), reply.status)
        self._end_barrier(reply)

    async def _run_gate(self, frame: Frame) -> None:
        gate = GATES[cast(str, frame.message)]
        self._service.stats.gates[cast(str, frame.message)] += 1
        PEER.set(self.session)
        try:
            if self._refusing:
                raise RESTARTING
            reply = Reply(await gate(self._service.ctx, self.session, frame))
        except PushdError as problem:
            reply = self._refusal(frame.id, problem)
        except Exception as bug:
            reply = self._refusal(frame.id, internal_error(bug, str(frame.message)))
        self._gate = False
        self._end_barrier(reply)
        self._service.schedule(self, self._deadline())

    async def _run_read(self, frame: Frame) -> None:
        reply = Reply(b"")
        self._service.stats.reads += 1
        PEER.set(self.session)
        try:
            await mark_read(self._service.ctx, self.session, cast(AckIn, frame.message))
        except PushdError as problem:
            reply = self._refusal(frame.id, problem)
        except Exception as bug:
            reply = self._refusal(frame.id, internal_error(bug, "ack"))
        self._end_barrier(reply)

    def _refusal(self, frame_id: FrameId, problem: PushdError) -> Reply:
        data = protocol.error(self.session.push_id, problem, frame_id)
        return Reply(data, problem.status)

    def _end_barrier(self, reply: Reply) -> None:
        self._busy = False
        if self._shut:
            return
        self._service.stats.count(reply.status)
        self._reply(reply.data, reply.status)
        if self._ending:
            self._close_when_done()
            return
        if reply.closes:
            self._finish(b"", "quit")
            return
        self.wake()
        self._pump()

    # --- output ---------------------------------------------------------------------------

    def _refuse(self, frame_id: FrameId, problem: PushdError) -> None:
        reply = self._refusal(frame_id, problem)
        self._service.stats.count(problem.status)
        self._reply(reply.data, reply.status)

    def _reply(self, data: bytes, status: int = 1) -> None:
        """Answer a line in its turn."""
        self._submit()
        bad = status in BAD
        if not self._slots:
            self._write([data], [bad])
            return
        self._bad_waits = self._bad_waits or bad
        last = self._slots[-1]
        if last.data is None:
            last = Slot()
            last.data = []
            self._slots.append(last)
        last.data.append(data)
        last.bad.append(bad)

    def _emit(self) -> None:
        """Write the replies whose turn has come."""
        slots = self._slots
        while slots and slots[0].data is not None:
            slot = slots.pop(0)
            self._write(cast(list[bytes], slot.data), slot.bad)
        if not slots:
            self._bad_waits = False
        self._close_when_done()

    def _write(self, replies: list[bytes], bad: list[bool]) -> None:
        """Put replies out; the last of too many bad lines in a row is the last frame."""
        self.wake()
        self._out_bytes += sum(map(len, replies))
        if True not in bad:
            self._out += replies
            self._bad = 0
            return
        for data, one in zip(replies, bad, strict=True):
            self._out.append(data)
            self._bad = self._bad + 1 if one else 0
            if self._bad >= self._service.limits.bad_lines:
                self._slots.clear()
                self._finish(b"", "bad lines")
                return

    def wake(self) -> None:
        """Have what is ready written at the end of this turn."""
        if not self._dirty and not self._shut:
            self._dirty = True
            self._service.flush_soon(self)

    def flush(self) -> None:
        """Write replies and deliveries of this turn in one go."""
        self._dirty = False
        if self._shut:
            return
        out = self._out
        outbox = self.session.outbox
        if outbox is not None and not (self._gate or self._paused_at):
            self._pack(outbox, out)
        if out:
            data = b"".join(out) if len(out) > 1 else out[0]
            self._service.stats.bytes_out += len(data)
            self.transport.write(data)
            if self._service.tracing:
                log.debug("written", connection=self.session.number, bytes=len(data))
            out.clear()
        if self._full:
            self._service.call_soon(self._go_on)
        self._out_bytes = 0
        if outbox is not None and outbox.wants_page and not self._gate:
            self._service.spawn(self._read_page(self.session, outbox))

    def _pack(self, outbox: Outbox, out: list[bytes]) -> None:
        """Pack deliveries, at most 64 KiB a turn so that others get theirs."""
        limits = self._service.limits
        left = limits.packet
        push_id = self.session.push_id
        room = limits.packet - len(push_id) - 48
        while left > 0:
            messages = outbox.next_packet(room)
            if messages is None:
                return
            data = protocol.packet(push_id, messages)
            self._service.stats.delivered += len(messages)
            self._service.note_sent(self.session.device, *outbox.span(len(messages)))
            out.append(data)
            left -= len(data)
        if not outbox.idle and not self._dirty:
            self._dirty = True
            self._service.flush_later(self)

    async def _read_page(self, session: Session, outbox: Outbox) -> None:
        """Fetch what waits in the store, as far as the window has room."""
        if not outbox.wants_page:
            return
        PEER.set(session)
        after, upto = outbox.begin_page()
        messages = self._service.ctx.store.messages
        device, account = session.device, session.account
        try:
            entries = await messages.page(
                device, account, after, upto, outbox.room, outbox.room_bytes
            )
        except Refusal as problem:
            # A gap in it could not be sealed: the disk is full, or the store is busy or stops.
            outbox.abandon_page()
            self._finish(protocol.error(session.push_id, problem), "queue not read")
            return
        except Exception as bug:
            outbox.abandon_page()
            internal_error(bug, "queue page")
            self._finish(b"", "internal error")
            return
        if session.outbox is not outbox:
            return
        if not entries:
            log.error("the queue has a hole", device=device, after=after, upto=upto)
            self._finish(b"", "internal error")
            return
        outbox.end_page(entries)
        self.wake()

    def signal(self, data: bytes) -> None:
        """Write a frame that may be dropped; a slow peer is not told."""
        if not (self._paused_at or self._ending or self._gate or self._full):
            self._out.append(data)
            self._out_bytes += len(data)
            self.wake()

    # --- ending ---------------------------------------------------------------------------

    def evict(self, data: bytes, reason: str) -> None:
        """Write a last frame and close; what was not answered yet stays unanswered."""
        self._why = self._why or reason
        self._slots.clear()
        self._held = None
        self._busy = False
        self._ending = True
        self._final = data
        self._close_when_done()

    def refuse_new_work(self) -> None:
        """Answer 5030 to what is not handed in yet, for the server is going down."""
        self._refusing = True
        if self._reading and not self._shut:
            self._reading = False
            self.transport.pause_reading()
        self._pump()

    def shut_down(self) -> None:
        """Write the server's last frame and close."""
        self._finish(SHUTDOWN, "shutdown")

    @property
    def finished(self) -> bool:
        """True when every line that was handled is answered and written."""
        outbox = self.session.outbox
        written = outbox is None or outbox.idle or bool(self._paused_at)
        return self._shut or (self._finished and not self._out and written)

    def _finish(self, data: bytes, why: str) -> None:
        """Handle no further line; close after the replies that are due and this last frame."""
        if self._ending:
            return
        self._why = why
        self._submit()
        self._ending = True
        self._held = None
        self._final = data
        self._close_when_done()

    def _close_when_done(self) -> None:
        if not self._ending or self._shut or self._slots or self._busy:
            return
        self._shut = True
        self._service.leave(self)
        out = [*self._out, self._final]
        self._out.clear()
        data = b"".join(out)
        transport = self.transport
        if transport.is_closing():
            return
        if data:
            self._service.stats.bytes_out += len(data)
            transport.write(data)
        self._shut_at = self._service.now()
        if self._eof:
            transport.close()
            self._drain()
            return
        # A close with unread input would send a reset that destroys the last reply.
        try:
            transport.write_eof()
        except (OSError, NotImplementedError):
            # The peer has vanished already; the drain's end cuts what is left.
            transport.close()
        if not self._reading and not transport.is_closing():
            self._reading = True
            transport.resume_reading()
        self._drain()

    def _drain(self) -> None:
        """Wait for the peer to take what was written, then a little for its end."""
        if self.transport.get_write_buffer_size():
            self._service.schedule(self, self._service.now())
        else:
            self._service.abort_later(self)

    def abort(self) -> None:
        """Cut the connection."""
        self._why = self._why or "cut"
        self.transport.abort()

    def facts(self) -> tuple[float, int]:
        """Give when it was opened and how many bytes wait to be taken."""
        return self._opened, self.transport.get_write_buffer_size()

    @property
    def answering(self) -> bool:
        """False when what is sent to the peer's machine is sent in vain."""
        return not unheard(self.transport)

    # --- deadlines and flow -----------------------------------------------------------------

    def _regulate(self) -> None:
        """Read on, or stop while what was read cannot be handled."""
        if self._shut or self._refusing:
            return
        waiting = self._splitter.waiting
        full = waiting > self._service.limits.inbox and self._blocked
        if full and self._reading:
            self._reading = False
            self.transport.pause_reading()
        elif not full and not self._reading:
            self._reading = True
            self.transport.resume_reading()
        if waiting and not self._line_since:
            self._line_since = self._grown_at = self._service.now()
            self._grown = 0

    def _deadline(self) -> float:
        """When the connection ends unless a line comes before."""
        limits = self._service.limits
        if self.session.state is State.ANONYMOUS:
            return min(self._last_line + limits.login_idle, self._opened + limits.login_total)
        return self._last_line + 1.5 * self.session.heartbeat

    def check(self, now: float) -> float:
        """Look at the deadlines; gives when to look next, 0 when the connection ends."""
        if self._shut:
            return self._check_drain(now)
        if self._paused_at and now >= self._paused_at + self._service.limits.write_timeout:
            self._why = "takes nothing"
            self.abort()
            return 0.0
        deadline = self._deadline()
        if now < deadline or self._busy or self._pending:
            return max(deadline, now + 0.25)
        if self._grows(now):
            return now + GROWTH_PERIOD
        self._slots.clear()
        self._finish(b"", "silent")
        return 0.0

    def _check_drain(self, now: float) -> float:
        """Look at what was written last; gives when to look again, 0 when that is over."""
        if self._lost:
            return 0.0
        if now >= self._shut_at + self._service.limits.write_timeout:
            self.abort()
            return 0.0
        if self.transport.get_write_buffer_size():
            return now + 0.25
        self._service.abort_later(self)
        return 0.0

    def _grows(self, now: float) -> bool:
        """Tell whether a long line is still coming fast enough."""
        limits = self._service.limits
        if not self._line_since or now - self._line_since > limits.long_line_total:
            return False
        waiting = self._splitter.waiting
        grown, period = waiting - self._grown, now - self._grown_at
        self._grown, self._grown_at = waiting, now
        return grown >= limits.long_line_rate * max(period, 1.0)


def _refusal_of(problem: BaseException) -> PushdError:
    """Give what a peer is told of an operation that failed."""
    if isinstance(problem, PushdError):
        return problem
    return internal_error(cast(Exception, problem), "message list")
