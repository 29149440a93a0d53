"""The words of a log: what a client did or saw, one entry each.

`tests.model.checker` says how a log is to be kept, and judges it. A chat is named by the id of the
other user, or of the group, which begins with `g`.
"""

from typing import Literal, NamedTuple

# What is delivered in the place of a message that was recalled.
RECALLED = "<recalled>"


class Event(NamedTuple):
    """What a message of the server's own says to programs."""

    name: str
    users: tuple[str, ...] = ()
    by: str = ""
    # Of `role` the role, of `muted` the seconds, of `group_updated` "muted" or "unmuted" if all
    # were; of `gap` its first seq.
    value: str = ""
    chats: tuple[tuple[str, int], ...] = ()  # of a gap: what is missing begins behind that msgId


class Starting(NamedTuple):
    """A device is asked for, a new one or one that is known; needed for new ones and recalls.

    Whether there is a new one is unknown when no `Resumed` of it follows.
    """

    device: str
    user: str


class Resumed(NamedTuple):
    """The device was bound: what the reply said of its queue."""

    device: str
    turn: int
    user: str
    first: int
    last: int
    queued: int


class Left(NamedTuple):
    """The device was signed out and exists no more."""

    device: str
    turn: int


class Sent(NamedTuple):
    """One message was sent, for the first time or again."""

    device: str
    turn: int
    client_id: str
    to: str
    content: str


class Answered(NamedTuple):
    """The message was answered, or the connection ended before that (unknown)."""

    device: str
    turn: int
    client_id: str
    outcome: Literal["confirmed", "refused", "unknown"]
    msg_id: int = 0  # of a confirmed one


class Delivered(NamedTuple):
    """A message arrived."""

    device: str
    turn: int
    seq: int
    msg_id: int
    sender: str  # "" for the server
    to: str
    content: str
    time: int = 0  # ms, 0 if that is not looked at
    event: Event | None = None


class Found(NamedTuple):
    """A message stands in the history."""

    device: str
    turn: int
    msg_id: int
    sender: str
    to: str
    content: str
    time: int = 0
    event: Event | None = None


class Acked(NamedTuple):
    """The client acked the message with this seq."""

    device: str
    turn: int
    seq: int


class Fenced(NamedTuple):
    """A command was answered: the acks before it are committed."""

    device: str
    turn: int


class Asked(NamedTuple):
    """A command was sent.

    Those that are judged: `befriend`, `unfriend`, `block`, `unblock` about a user; `sign_out`
    about a device; `recall` about a msgId; `read` about a chat, a blank, and up to which msgId
    (0: up to what was acked), which has an answer when the next frame has one. The acks before
    any command that was answered are committed.
    """

    device: str
    turn: int
    action: str
    about: str = ""


class Told(NamedTuple):
    """The command was answered, in the order of asking, or never (unknown)."""

    device: str
    turn: int
    action: str
    outcome: Literal["ok", "refused", "unknown"]


class Counted(NamedTuple):
    """The server told a number: of `friends`, of the `members` of a group, the `mark` of a chat."""

    device: str
    turn: int
    what: str
    about: str
    value: int


Entry = (
    Starting
    | Resumed
    | Left
    | Sent
    | Answered
    | Delivered
    | Found
    | Acked
    | Fenced
    | Asked
    | Told
    | Counted
)
