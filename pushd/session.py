"""What one connection is to the rest: who is logged in, with which device; no I/O.

    ANONYMOUS --login--> LOGGED_IN --bind--> STARTED
    ANONYMOUS --bind---> STARTED                        (restart needs no login)
    LOGGED_IN, STARTED --logout--> ANONYMOUS
    any --end--> ENDED

An event that the state has no row for raises and changes nothing.
"""

from enum import Enum, auto
from typing import Protocol

from .errors import Refusal
from .limits import network
from .model import Actor, Bound
from .outbox import Outbox
from .status import Status


class State(Enum):
    """Where a connection stands."""

    ANONYMOUS = auto()
    LOGGED_IN = auto()
    STARTED = auto()
    ENDED = auto()


TRANSITIONS: dict[tuple[State, str], State] = {
    (State.ANONYMOUS, "login"): State.LOGGED_IN,
    (State.ANONYMOUS, "bind"): State.STARTED,
    (State.LOGGED_IN, "bind"): State.STARTED,
    (State.LOGGED_IN, "logout"): State.ANONYMOUS,
    (State.STARTED, "logout"): State.ANONYMOUS,
    (State.ANONYMOUS, "end"): State.ENDED,
    (State.LOGGED_IN, "end"): State.ENDED,
    (State.STARTED, "end"): State.ENDED,
}

# What a client may ask for with `accept`.
ACCEPTS = {"ack": 1, "typing": 2, "presence": 4}


class Link(Protocol):
    """What a session's connection does for the hub; none of it waits."""

    def wake(self) -> None:
        """Note that the outbox has something to write."""

    def signal(self, data: bytes) -> None:
        """Write a frame that may be dropped when the peer is slow."""

    def evict(self, data: bytes, reason: str) -> None:
        """Write a last frame and close; the reason is for the log."""

    def facts(self) -> tuple[float, int]:
        """Give when it was opened and how many bytes wait to be taken."""

    @property
    def answering(self) -> bool:
        """False when what is sent to the peer's machine is sent in vain."""


class Gone:
    """The link of a session whose connection is gone: the two hold each other no more.

    A cycle would be left to the collector, which looks at what has lived long hardly ever.
    """

    answering = False

    def wake(self) -> None:
        """Do nothing."""

    def signal(self, data: bytes) -> None:
        """Do nothing."""

    def evict(self, data: bytes, reason: str) -> None:
        """Do nothing."""

    def facts(self) -> tuple[float, int]:
        """Give nothing."""
        return 0.0, 0


GONE = Gone()


class Session:
    """The identity of one connection; it never shows its pushId."""

    __slots__ = (
        "accepts",
        "actor",
        "address",
        "heartbeat",
        "link",
        "logged_device",
        "network",
        "number",
        "operator",
        "outbox",
        "proven",
        "push_id",
        "read_receipts",
        "show_presence",
        "state",
        "user",
        "watching",
    )

    def __init__(
        self, number: int, address: str, link: Link, heartbeat: int, *, operator: bool = False
    ) -> None:
        self.number = number  # names the connection in logs
        self.address = address  # of the peer
        self.network = network(address)  # what budgets count it as
        self.link = link
        self.operator = operator  # it came by the control socket
        self.state = State.ANONYMOUS
        self.actor: Actor | None = None  # the login, None without one
        self.user = 0  # the account in logs: it outlives the end of the connection
        self.logged_device = 0  # likewise
        self.push_id = ""  # the secret of the device, "" without one
        self.outbox: Outbox | None = None  # the device's window, None without one
        self.proven = True  # the client has shown that it knows the pushId, or there is none
        self.heartbeat = heartbeat  # seconds the client keeps
        self.accepts = 0  # bits of ACCEPTS
        self.show_presence = True  # as the account has chosen
        self.read_receipts = True  # as the account has chosen
        self.watching: tuple[int, ...] = ()  # accounts whose presence it is told

    def __repr__(self) -> str:
        who = self.actor.account if self.actor else "-"
        return f"<Session {self.number} {self.state.name} user={who}>"

    @property
    def account(self) -> int:
        """The account that is logged in; 0 without a login."""
        return self.actor.account if self.actor else 0

    @property
    def device(self) -> int:
        """The device that was started; 0 without one."""
        return self.actor.device if self.actor else 0

    @property
    def who(self) -> Actor:
        """The login; raises Refusal 11001 without one, also when it ended meanwhile."""
        if self.actor is None:
            raise Refusal(Status.ERROR_NET)
        return self.actor

    def login(self, actor: Actor) -> None:
        """Note a login without a device."""
        self._move("login")
        self.actor = actor
        self.user = actor.account

    def bind(self, bound: Bound, push_id: str, outbox: Outbox) -> None:
        """Note a started device and its window."""
        self._move("bind")
        self.actor = bound.actor
        self.user = bound.actor.account
        self.logged_device = bound.actor.device
        self.push_id = push_id
        self.outbox = outbox
        self.show_presence = bound.show_presence
        self.read_receipts = bound.read_receipts

    def logout(self) -> None:
        """Be as before the login."""
        self._move("logout")
        self._forget()
        self.user = self.logged_device = 0

    def end(self) -> None:
        """Be nobody for ever; a second time changes nothing."""
        if self.state is not State.ENDED:
            self._move("end")
            self._forget()

    def accept(self, wanted: list[str]) -> None:
        """Note what the client wants to be told; unknown words are ignored."""
        self.accepts = 0
        for word in wanted:
            self.accepts |= ACCEPTS.get(word, 0)

    def _forget(self) -> None:
        self.actor = None
        self.push_id = ""
        self.outbox = None
        self.accepts = 0

    def _move(self, event: str) -> None:
        state = TRANSITIONS.get((self.state, event))
        if state is None:
            raise AssertionError(f"{event} in state {self.state.name}")
        self.state = state
