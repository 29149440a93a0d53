"""What is known of devices and messages while a log is read, and what was found."""

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tests.model.entries import Asked, Delivered, Event, Sent

# Sender, recipient, content and event: what a msgId stands for.
Fact = tuple[str, str, str, Event | None]
END = 1 << 60  # behind all entries of a log, and all msgIds
NO_GROUPS: Mapping[str, Collection[str]] = MappingProxyType({})


@dataclass
class Report:
    """What was found."""

    violations: list[str] = field(default_factory=list)  # none is what one wants to see
    sent: int = 0  # attempts
    confirmed: int = 0  # messages
    delivered: int = 0  # for the first time
    redelivered: int = 0
    lost_acks: int = 0  # acks whose effect a crash took
    gaps: int = 0
    lowest: int = 0  # msgId seen
    highest: int = 0


class Device:
    """One device."""

    def __init__(self, user: str, since: int, base: int, found: set[int]) -> None:
        self.user = user
        self.found = found  # msgIds in the history, shared with the user's other devices
        self.since = self.resumed = since  # the index of its first entry, and of its turn
        self.turn = 0
        self.seqs: dict[int, int] = {}  # seq -> msgId
        self.numbers: dict[int, int] = {}  # msgId -> seq
        self.gaps: dict[int, Delivered] = {}  # by seq
        self.next = base + 1  # the seq that comes next in this turn
        self.acked = base  # acked in this turn
        self.durable = base  # the highest that is known to be committed
        self.last = base  # the highest seq that was heard of
        self.open: deque[str] = deque()  # clientIds without an answer
        self.asked: deque[tuple[Asked, int, int]] = deque()  # with its index, and acked then
        self.closed = False  # it found nothing waiting, and nothing happened since
        self.ended = False

    def has(self, number: int, chat: str, joined: int) -> bool:
        """Tell whether it got a message, or a gap told of it and the history has it.

        The history of a group begins where its user has joined it last.
        """
        if number in self.numbers:
            return True
        for seq, gap in self.gaps.items():
            begins = any(name == chat and after < number for name, after in chats_of(gap))
            if begins and number < self.seqs.get(seq + 1, END):
                return number in self.found or number < joined
        return False


class Message:
    """One message of one user and clientId."""

    def __init__(self, user: str, sent: Sent, index: int) -> None:
        self.fact: Fact = (user, sent.to, sent.content, None)
        self.first, self.done = index, END  # its first attempt, its first confirmation
        self.devices: list[str] = []  # that sent it
        self.msg_id = 0
        self.refused = self.unknown = False  # at least once


def chats_of(gap: Delivered) -> tuple[tuple[str, int], ...]:
    """Give the chats that a gap names."""
    return gap.event.chats if gap.event is not None else ()


def first_seq(entry: Delivered) -> int:
    """Give the first seq that an entry is for."""
    event = entry.event
    return int(event.value) if event is not None and event.name == "gap" else entry.seq


def chat_of(fact: Fact, user: str) -> str:
    """Name the chat of a message as a user sees it."""
    sender, to, _, _ = fact
    if to.startswith("g"):
        return to
    return sender if to == user else to
