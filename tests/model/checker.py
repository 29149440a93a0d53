"""What clients saw, held against what the server promises: one pure function over a log.

A log is a list of entries in the order in which clients saw or did things. `turn` counts the
connections of a device from 1. Whoever writes a log keeps these rules, for they are what makes
every slip of the server visible:

- a turn begins with `Resumed`, and the last entry of a device is one that found nothing waiting;
- each `Sent` gets one `Answered` in its turn, in the order of sending;
- what is unknown is sent again, unchanged and in order, before anything new;
- a device that signs out ends with `Left`, with no message of its own unanswered, and the next one
  of its user starts afterwards and inherits its queue (users of whom a device leaves have one);
- `Acked` stands once for each message, and `Fenced` where acks so far are known to be durable.

The invariants, by which the violations are numbered:

    I1  a confirmed message reaches every device that it is for
    I2  an unconfirmed one arrives with at most one msgId, a refused or made-up one never
    I3  a clientId has one msgId, a msgId one clientId, and a device gets it under one seq
    I4  seq has no holes, msgIds rise within a chat, all see the same, a sender's order is kept
    I5  what was durably acked never returns; acks that a crash took are counted
    I6  nobody else gets it, and the device that sent it does not either
    I7  the queue is as long as it is said to be
"""

from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple


class Resumed(NamedTuple):
    """The device was bound: what the reply said of its queue."""

    device: str
    turn: int
    user: str
    first: int
    last: int
    queued: int


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
    sender: str
    to: str
    content: str


class Acked(NamedTuple):
    """The client acked the message with this seq."""

    device: str
    turn: int
    seq: int


class Fenced(NamedTuple):
    """A command was answered: the acks before it are committed."""

    device: str
    turn: int


class Left(NamedTuple):
    """The device was signed out and exists no more."""

    device: str
    turn: int


Entry = Resumed | Sent | Answered | Delivered | Acked | Fenced | Left
Fact = tuple[str, str, str]  # sender, recipient and content: what a msgId stands for


@dataclass
class Report:
    """What was found."""

    violations: list[str] = field(default_factory=list)  # none is what one wants to see
    sent: int = 0  # attempts
    confirmed: int = 0  # messages
    delivered: int = 0  # for the first time
    redelivered: int = 0
    lost_acks: int = 0  # acks whose effect a crash took
    lowest: int = 0  # msgId seen
    highest: int = 0


Groups = Mapping[str, Collection[str]]  # the users in each group, which stay the same


def check(log: Iterable[Entry], groups: Groups = MappingProxyType({})) -> Report:
    """Hold a whole log against the invariants."""
    checker = _Checker(groups)
    for index, entry in enumerate(log):
        checker.take(index, entry)
    return checker.conclude()


class _Device:
    """What is known of one device while the log is read."""

    def __init__(self, user: str, since: int, base: int) -> None:
        self.user = user
        self.since = since  # the index of its first entry
        self.turn = 0
        self.seqs: dict[int, int] = {}  # seq -> msgId
        self.numbers: dict[int, int] = {}  # msgId -> seq
        self.next = base + 1  # the seq that comes next in this turn
        self.acked = base  # acked in this turn
        self.durable = base  # the highest that is known to be committed
        self.last = base  # the highest seq that was heard of
        self.open: deque[str] = deque()  # clientIds without an answer
        self.closed = False  # it found nothing waiting, and nothing happened since
        self.left = 0  # the index of its `Left`


class _Message:  # of one user and clientId
    def __init__(self, user: str, sent: Sent, index: int) -> None:
        self.fact: Fact = (user, sent.to, sent.content)
        self.first = index  # of its first attempt
        self.devices: list[str] = []  # that sent it
        self.msg_id = 0
        self.refused = self.unknown = False  # at least once


class _Checker:
    def __init__(self, groups: Groups) -> None:
        self.report = Report()
        self.groups = groups
        self.devices: dict[str, _Device] = {}
        self.messages: dict[tuple[str, str], _Message] = {}  # by user and clientId, as first sent
        self.facts: dict[int, Fact] = {}  # by msgId
        self.owners: dict[int, tuple[str, str]] = {}  # confirmed msgIds

    def take(self, index: int, entry: Entry) -> None:
        """Read one entry."""
        if isinstance(entry, Resumed):
            self._resumed(index, entry)
            return
        device = self.devices.get(entry.device)
        if device is None or device.turn != entry.turn:
            self._violate("log", f"{entry} is of another turn")
            return
        device.closed = False
        if isinstance(entry, Sent):
            self._sent(index, device, entry)
        elif isinstance(entry, Delivered):
            self._delivered(device, entry)
        elif isinstance(entry, Acked):
            self._acked(device, entry)
        elif isinstance(entry, Answered):
            self._answered(device, entry)
        elif isinstance(entry, Left):
            device.left, device.closed = index, True
        else:
            device.durable = max(device.durable, device.acked)

    def _violate(self, rule: str, text: str) -> None:
        self.report.violations.append(f"{rule}: {text}")

    def _resumed(self, index: int, entry: Resumed) -> None:
        base = entry.first - 1 if entry.queued else entry.last
        if entry.last - base != entry.queued or (not entry.queued and entry.first):
            self._violate("I7", f"{entry} does not add up")
        device = self.devices.setdefault(entry.device, _Device(entry.user, index, base))
        if entry.turn != device.turn + 1 or entry.user != device.user:
            self._violate("log", f"{entry} follows turn {device.turn} of {device.user}")
        if device.open:
            self._violate("log", f"{list(device.open)} got no outcome before {entry}")
        if base > device.acked:
            self._violate("I1", f"{entry} skips seqs after {device.acked}, which were not acked")
        if base < device.durable:
            self._violate("I5", f"{entry} brings back what was acked up to {device.durable}")
        if entry.last < device.last:
            self._violate("I4", f"{entry} forgets seqs up to {device.last}")
        self.report.lost_acks += max(0, device.acked - base)
        device.open.clear()
        device.turn, device.closed = entry.turn, not entry.queued
        device.next, device.acked = base + 1, base
        device.last = max(device.last, entry.last)

    def _sent(self, index: int, device: _Device, entry: Sent) -> None:
        self.report.sent += 1
        fresh = _Message(device.user, entry, index)
        message = self.messages.setdefault((device.user, entry.client_id), fresh)
        if message.fact[1:] != (entry.to, entry.content):
            self._violate("log", f"{entry} was sent before with another content")
        message.devices.append(entry.device)
        device.open.append(entry.client_id)

    def _answered(self, device: _Device, entry: Answered) -> None:
        if not device.open or device.open[0] != entry.client_id:
            self._violate("I4", f"{entry} is not the answer that is due")
            return
        device.open.popleft()
        message = self.messages[key := (device.user, entry.client_id)]
        message.unknown |= entry.outcome == "unknown"
        message.refused |= entry.outcome == "refused"
        if entry.outcome != "unknown" and message.msg_id not in (0, entry.msg_id):
            self._violate("I3", f"{entry} was confirmed before as {message.msg_id}")
        if entry.outcome == "confirmed":
            message.msg_id = entry.msg_id
            if self.owners.setdefault(entry.msg_id, key) != key:
                self._violate("I3", f"{entry} stands for {self.owners[entry.msg_id]} too")
            self._agree(entry, entry.msg_id, message.fact)

    def _delivered(self, device: _Device, entry: Delivered) -> None:
        if entry.seq != device.next:
            self._violate("I4", f"{entry} came where seq {device.next} was due")
        device.next = entry.seq + 1
        device.last = max(device.last, entry.seq)
        if entry.seq <= device.durable:
            self._violate("I5", f"{entry} was acked durably up to {device.durable}")
        known = device.seqs.get(entry.seq)
        if known is not None:
            self.report.redelivered += 1
            if known != entry.msg_id:
                self._violate("I3", f"{entry} had the msgId {known} before")
        elif device.numbers.setdefault(entry.msg_id, entry.seq) != entry.seq:
            self._violate("I3", f"{entry} came before as seq {device.numbers[entry.msg_id]}")
        else:
            self.report.delivered += 1
            device.seqs[entry.seq] = entry.msg_id
        if device.user not in self._people(entry.sender, entry.to):
            self._violate("I6", f"{entry} is not for {device.user}")
        self._agree(entry, entry.msg_id, (entry.sender, entry.to, entry.content))

    def _people(self, sender: str, to: str) -> Collection[str]:
        return self.groups.get(to, (sender, to))

    def _agree(self, entry: Entry, msg_id: int, fact: Fact) -> None:
        if self.facts.setdefault(msg_id, fact) != fact:
            self._violate("I4", f"{entry} is not what others know as {msg_id}")

    def _acked(self, device: _Device, entry: Acked) -> None:
        if entry.seq != device.acked + 1 or entry.seq >= device.next:
            self._violate("log", f"{entry} is not what there was to ack")
        device.acked = entry.seq

    def conclude(self) -> Report:
        """Judge what shows only when all is read."""
        for name, device in self.devices.items():
            if not device.closed or device.open:
                self._violate("log", f"{name} does not end with an empty queue")
            self._rising_in_chats(name, device)
        for key, message in self.messages.items():
            if message.msg_id:
                self.report.confirmed += 1
                self._reached(key, message)
        self._only_what_was_sent()
        self._in_the_order_of_sending()
        self.report.lowest, self.report.highest = min(self.facts or [0]), max(self.facts or [0])
        return self.report

    def _rising_in_chats(self, name: str, device: _Device) -> None:
        newest: dict[frozenset[str], int] = {}
        for seq in sorted(device.seqs):
            number = device.seqs[seq]
            sender, to, _ = self.facts[number]
            chat = frozenset([to] if to in self.groups else [sender, to])
            if newest.get(chat, 0) >= number:
                self._violate("I4", f"{name} got {number} behind {newest[chat]}")
            newest[chat] = number

    def _reached(self, key: tuple[str, str], message: _Message) -> None:
        sender, to, _ = message.fact
        for name, device in self.devices.items():
            got = message.msg_id in device.numbers
            if name in message.devices:
                if got and len(set(message.devices)) == 1:
                    self._violate("I6", f"{name} got its own message {key}")
            elif device.user not in self._people(sender, to) or device.since >= message.first:
                continue
            elif not (got or (device.left and self._inherited(device, message))):
                self._violate("I1", f"{name} never got {key}, confirmed as {message.msg_id}")

    def _inherited(self, device: _Device, message: _Message) -> bool:
        """Tell whether the device that left may miss it: a later one has it, or it was too late."""
        heirs = (other for other in self.devices.values() if other.user == device.user)
        return device.left < message.first or any(
            message.msg_id in heir.numbers for heir in heirs if heir.since > device.left
        )

    def _only_what_was_sent(self) -> None:
        """Match what arrived unconfirmed with what was sent and never answered."""
        lost = [one for one in self.messages.values() if one.unknown and not one.msg_id]
        unanswered = Counter(message.fact for message in lost)
        for number in self.facts.keys() - self.owners.keys():
            fact = self.facts[number]
            if not unanswered[fact]:
                self._violate("I2", f"{number} arrived, but nobody sent {fact} or it was refused")
            unanswered[fact] -= 1

    def _in_the_order_of_sending(self) -> None:
        newest: dict[tuple[str, str], int] = {}
        for key, message in self.messages.items():
            # One that was refused at first has its place where it was accepted.
            if not message.msg_id or message.refused:
                continue
            way = (message.devices[0], message.fact[1])
            if message.msg_id <= newest.get(way, 0):
                self._violate("I4", f"{key} is {message.msg_id}, behind {newest[way]}")
            newest[way] = message.msg_id
