"""The row of a command, and the one checkpoint that every command passes.

`run` refuses what the row does not allow: the state of the session, operator or not, the types of
the fields, the budget. A row says nothing is open unless it spells it out: the default is locked.
A handler takes (context, session, request) and returns a result or raises a Refusal; it never
sees a socket, SQL or the loop.
"""

import secrets
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Protocol

import msgspec
import structlog
from msgspec import Meta, Struct

from . import protocol
from .audit import TEXT_MAX, Attempts, Entry
from .clock import Clock, Dates
from .config import Config
from .errors import BadField, PushdError, Refusal, TooMany
from .hub import Hub
from .jobs import Jobs
from .limits import Budget, Penalties
from .media import Media
from .model import Frame, Maybe, Natural, StatsOut
from .passwords import Hasher, Turns
from .session import Session
from .status import Status
from .store import Store
from .store.health import Census

log = structlog.get_logger("pushd.commands")

# Budgets that are counted for the address and not for the account.
BY_ADDRESS = frozenset({"registers", "logins", "wrong_push_ids"})


class Needs(StrEnum):
    """What a row asks of the session."""

    NOBODY = "nobody"  # locked
    NOTHING = "nothing"
    STRANGER = "no session"
    SESSION = "session"
    OPERATOR = "operator"


class Request(Struct, rename="camel"):
    """The fields of a command; absent, null and "" mean the same for those that are optional."""


# The parts of a page that a client asks for: a number from 0, or the `next` of the page before.
PageNumber = Annotated[int, Meta(ge=0, le=1_000_000)] | str | None
PageSize = Natural | Maybe


class OnUser(Request):
    """A request about a user, whom an operator names by id, phone or exact name."""

    user: str | None = None


class Paged(Request):
    """A request for a page of a list."""

    page: PageNumber = None
    size: PageSize = None


@dataclass(slots=True)
class Page:
    """One page of a list, and the `next` to go on with, "" at the end."""

    items: Sequence[object] | msgspec.Raw
    next: str = ""


@dataclass(slots=True)
class Window:
    """Which entries a page asks for: `size` of them behind a key, but for the first `skip`."""

    key: tuple[int, ...]
    skip: int
    size: int


@dataclass(frozen=True, slots=True)
class Command:
    """One row of the table: what a command needs, takes and gives."""

    name: str
    handler: Callable[["Context", Session, Any], Awaitable[object]]
    request: type[Request] = Request
    needs: Needs = Needs.NOBODY
    listing: bool = False  # the result is a list
    zero_when_empty: bool = False  # status 0 for an empty list, as search has it
    budget: str = ""  # the name of a budget that every request spends
    closes: bool = False  # the connection is closed after the reply
    # Of an operator's row that changes something: which fields the audit shows. Never a secret.
    audit: tuple[str, ...] | None = None


class Control(Protocol):
    """What an operator may ask of the running server; nothing waits but for the store."""

    def stats(self) -> StatsOut:
        """Give the counters, without those of the store."""

    def connections(self) -> Iterable[Session]:
        """Give the sessions of all connections, in no order."""

    def facts(self, session: Session) -> tuple[float, int]:
        """Give for how many seconds a connection is there, and how many bytes wait for it."""

    def sent(self, devices: Collection[int], message: int) -> Mapping[int, tuple[int, int]]:
        """Give when a message was first written to these devices (ms), and how often."""

    def metrics(self) -> dict[str, Any]:
        """Give what the server tells of itself, by the names of the metrics."""

    async def census(self) -> Census:
        """Give what waits in the store, as it was a few seconds ago at most."""

    def log_level(self, level: str = "") -> str:
        """Change the level of the log, if one is given; gives the one that holds."""

    def stop(self) -> None:
        """Shut the server down, in order."""


async def _nothing_to_reload() -> object:
    raise Refusal(Status.NOT_ALLOWED, "this server cannot reload its settings")


@dataclass(slots=True)
class Context:
    """What handlers may use."""

    store: Store
    hub: Hub
    clock: Clock
    dates: Dates
    config: Config
    hasher: Hasher
    media: Media
    penalties: Penalties
    budgets: Mapping[str, Budget]
    token: Callable[[], str]  # makes a pushId
    turns: Turns = field(default_factory=Turns)
    attempts: Attempts = field(default_factory=Attempts)
    jobs: Jobs = field(default_factory=Jobs)
    control: Control = field(init=False)  # set by the server, once it serves
    reload: Callable[[], Awaitable[object]] = _nothing_to_reload
    table: Mapping[str, Command] = field(default_factory=dict)

    def moment(self, ms: int) -> str:
        """Give a time with its milliseconds, as operators see it; "" for 0."""
        return f"{self.dates.text(ms)}.{ms % 1000:03}" if ms else ""

    def date(self) -> str:
        """Give the present time as replies show it."""
        return self.dates.text(self.clock.wall())

    def spend(self, session: Session, name: str) -> None:
        """Spend one of a budget; raises TooMany."""
        by_address = name in BY_ADDRESS
        if by_address and not self.config.limits.per_address:
            return
        key: object = session.network if by_address else session.account
        wait = self.budgets[name].take(key, self.clock.now())
        if wait:
            raise TooMany(wait)

    def window(self, page: PageNumber, size: PageSize, parts: int = 1, *, most: int = 0) -> Window:
        """Read which page is asked for, of `most` entries if not as the settings say.

        Raises: BadField.
        """
        limits = self.config.limits
        most = most or limits.page_max
        count = limits.page if size in (None, "") else int(size)
        if not 1 <= count <= most:
            raise BadField("size", f"size is 1 to {most}")
        if isinstance(page, int):
            return Window((), page * count, count)
        if not page:
            return Window((), 0, count)
        if page.isascii() and page.isdigit() and len(page) < 8:
            return Window((), int(page) * count, count)
        keys = page.removeprefix("after:").split(".") if page.startswith("after:") else []
        if len(keys) != parts or not all(_is_key(key) for key in keys):
            raise BadField("page", "page is a number from 0, or the next of the page before")
        return Window(tuple(int(key) for key in keys), 0, count)


def _is_key(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


def listed(items: Sequence[Any], window: Window, key: Callable[[Any], Sequence[int]]) -> Page:
    """Make a page of the entries that were found; one more than asked means that more follow."""
    if len(items) <= window.size:
        return Page(items)
    shown = items[: window.size]
    keys = ".".join(str(part) for part in key(shown[-1]))
    return Page(shown, f"after:{keys}")


async def run(ctx: Context, session: Session, row: Command, line: bytes) -> object:
    """Check everything a row asks for, then call its handler; raises Refusal."""
    _check_needs(session, row)
    if row.audit is not None:
        return await _audited(ctx, session, row, line)
    request = protocol.decode_request(line, row.request)
    if row.budget:
        ctx.spend(session, row.budget)
    return await row.handler(ctx, session, request)


def _check_needs(session: Session, row: Command) -> None:
    logged_in = session.actor is not None
    match row.needs:
        case Needs.NOTHING:
            pass
        case Needs.STRANGER:
            if session.operator:
                raise Refusal(Status.NOT_ALLOWED, "nobody logs in by the control socket")
            if logged_in:
                raise Refusal(Status.ERROR_REPEAT_LOGIN)
        case Needs.SESSION:
            if not logged_in:
                raise Refusal(Status.ERROR_NET)
        case Needs.OPERATOR if session.operator:
            pass
        case _:
            raise Refusal(Status.NOT_ALLOWED, "only an operator may do this")


async def _audited(ctx: Context, session: Session, row: Command, line: bytes) -> object:
    """Call an operator's row and write down what came of it, before it is answered."""
    entry = Entry(session.address, row.name)
    try:
        request = protocol.decode_request(line, row.request)
        try:
            result = await row.handler(ctx, session, request)
        finally:
            # Only now: a handler puts the id in the place of a phone or a name.
            entry.describe(request, row.audit or ())
        entry.about(result)
        entry.outcome = "ok"
        return result
    except PushdError as problem:
        entry.outcome = str(problem)[:TEXT_MAX]
        raise
    finally:
        await _write_down(ctx, entry)


async def _write_down(ctx: Context, entry: Entry) -> None:
    log.info("operator", **entry.told())
    try:
        await ctx.store.audit.add(entry)
    except PushdError as problem:
        # What was done is done; the log has it.
        log.error("the audit was not written", action=entry.action, problem=str(problem))


@dataclass(slots=True)
class Reply:
    """The line that answers a request, its status, and whether the connection closes after it."""

    data: bytes
    status: int = Status.SUCCESS
    closes: bool = False


async def answer(ctx: Context, session: Session, frame: Frame, line: bytes) -> Reply:
    """Run a command and encode its reply; never raises."""
    assert isinstance(frame.cmd, str), "only commands are answered here"
    row = ctx.table.get(frame.cmd)
    if row is None:
        problem = Refusal(Status.UNKNOWN_COMMAND, field="cmd")
        return refused(ctx, frame, problem)
    try:
        result = await run(ctx, session, row, line)
    except PushdError as refusal:
        if ctx.config.log.level == "debug":  # a filtered line costs more than this look
            log.debug("refused", cmd=row.name, status=int(refusal.status))
        return refused(ctx, frame, refusal)
    except Exception as bug:
        return refused(ctx, frame, internal_error(bug, row.name))
    return _success(ctx, frame, row, result)


def internal_error(bug: Exception, where: str) -> Refusal:
    """Log what should not have happened, and give the refusal that holds only its reference."""
    reference = secrets.token_hex(4)
    log.error("internal error", reference=reference, where=where, exc_info=bug)
    return Refusal(Status.INTERNAL, f"internal error {reference}")


def _success(ctx: Context, frame: Frame, row: Command, result: object) -> Reply:
    more: dict[str, object] | None = None
    status = Status.SUCCESS
    if isinstance(result, Page):
        if result.next:
            more = {"next": result.next}
        if row.zero_when_empty and not result.items:
            status = Status.FAILURE
        result = result.items
    data = protocol.envelope(row.name, frame.id, result, ctx.date(), status=status, more=more)
    return Reply(data, status, row.closes)


def refused(ctx: Context, frame: Frame, problem: PushdError) -> Reply:
    """Encode the refusal of a command; its result keeps the type that the command has."""
    row = ctx.table.get(str(frame.cmd))
    more = protocol.refusal_fields(problem)
    del more["status"]
    data = protocol.envelope(
        str(frame.cmd),
        frame.id,
        [] if row is not None and row.listing else {},
        ctx.date(),
        status=problem.status,
        message=protocol.text_of(problem),
        more=more,
    )
    return Reply(data, problem.status)
