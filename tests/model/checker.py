"""What clients saw, held against what the server promises: one pure function over a log.

A log is a list of entries in the order in which clients saw or did things (tests.model.entries).
`turn` counts the connections of a device from 1. Whoever writes a log keeps these rules, for they
are what makes every slip of the server visible:

- a turn begins with `Resumed`, and the last entry of a device is one that found nothing waiting,
  or `Left`: a user's next device inherits its queue if it was the last one;
- each `Sent` gets one `Answered` in its turn, in the order of sending, and each `Asked` a `Told`;
- what is unknown is sent again, unchanged and in order, before anything new;
- `Acked` stands once for each message, and once for a gap;
- what a gap hides is looked up in the history at the end, as are groups.

The invariants, by which the violations are numbered:

    I1  a confirmed message reaches every device that it is for
    I2  an unconfirmed one arrives with at most one msgId, a refused or made-up one never
    I3  a clientId has one msgId, a msgId one clientId, and a device gets it under one seq
    I4  seq has no holes, msgIds rise within a chat, all see the same, a sender's order is kept
    I5  what was durably acked never returns; acks that a crash took are counted
    I6  nobody else gets it or may send it, as of its commit; the device that sent it gets none
    I7  queues, friends, members and read marks are as many and as far as they are said to be
"""

from collections.abc import Collection, Iterable, Mapping
from itertools import pairwise

from tests.model.entries import (
    RECALLED,
    Acked,
    Answered,
    Asked,
    Counted,
    Delivered,
    Entry,
    Fenced,
    Found,
    Left,
    Resumed,
    Sent,
    Starting,
    Told,
)
from tests.model.memory import END, NO_GROUPS, Device, Fact, Message, Report, first_seq
from tests.model.orders import falling, made_up, out_of_order
from tests.model.rights import Groups, Heard, Past, audiences, forbidden, place


def check(log: Iterable[Entry], groups: Mapping[str, Collection[str]] = NO_GROUPS) -> Report:
    """Hold a whole log against the invariants; `groups` are those whose members never change."""
    checker = _Checker(groups)
    for index, entry in enumerate(log):
        checker.take(index, entry)
    return checker.conclude()


class _Checker:
    def __init__(self, groups: Mapping[str, Collection[str]]) -> None:
        self.report = Report()
        self.fixed = groups
        self.devices: dict[str, Device] = {}
        self.messages: dict[tuple[str, str], Message] = {}  # by user and clientId, as first sent
        self.facts: dict[int, Fact] = {}  # by msgId
        self.times: dict[int, int] = {}  # by msgId
        self.owners: dict[int, tuple[str, str]] = {}  # confirmed msgIds
        self.starting: dict[str, tuple[str, int]] = {}  # new devices: their user, and when
        self.asking: dict[str, int] = {}  # when a device was asked for last
        self.ends: dict[str, int] = {}
        self.found: dict[str, set[int]] = {}  # msgIds that users saw in the history
        self.past = Past()

    def take(self, index: int, entry: Entry) -> None:
        """Read one entry."""
        if isinstance(entry, Starting):
            self.starting.setdefault(entry.device, (entry.user, index))
            self.asking[entry.device] = index
            return
        if isinstance(entry, Resumed):
            self._resumed(index, entry)
            return
        device = self.devices.get(entry.device)
        if isinstance(entry, Left):
            self.ends[entry.device] = index
            if device is not None:
                device.ended = True
            return
        if device is None or device.turn != entry.turn or device.ended:
            self._violate("log", f"{entry} is of another turn")
            return
        device.closed = False
        if isinstance(entry, Sent):
            self._sent(index, device, entry)
        elif isinstance(entry, Delivered):
            self._delivered(device, entry)
        elif isinstance(entry, Found):
            self._found(device, entry)
        elif isinstance(entry, Acked):
            self._acked(device, entry)
        elif isinstance(entry, Answered):
            self._answered(index, device, entry)
        elif isinstance(entry, Asked):
            self.past.asked(entry, index)
            device.asked.append((entry, index, device.acked))
        elif isinstance(entry, Told):
            self._told(index, device, entry)
        elif isinstance(entry, Counted):
            self.past.counted(device.user, entry)
        elif isinstance(entry, Fenced):
            device.durable = max(device.durable, device.acked)

    def _violate(self, rule: str, text: str) -> None:
        self.report.violations.append(f"{rule}: {text}")

    def _resumed(self, index: int, entry: Resumed) -> None:
        base = entry.first - 1 if entry.queued else entry.last
        if entry.last - base != entry.queued or (not entry.queued and entry.first):
            self._violate("I7", f"{entry} does not add up")
        found = self.found.setdefault(entry.user, set())
        fresh = Device(entry.user, index, base, found)
        device = self.devices.setdefault(entry.device, fresh)
        if entry.turn == 1 and base and entry.device in self.starting:
            self._violate("I4", f"{entry} is new, and its seqs do not begin with 1")
        if entry.turn != device.turn + 1 or entry.user != device.user or device.ended:
            self._violate("log", f"{entry} follows turn {device.turn} of {device.user}")
        if device.open or device.asked:
            self._violate("log", f"{[*device.open, *device.asked]} got no outcome before {entry}")
        if base > device.acked:
            self._violate("I1", f"{entry} skips seqs after {device.acked}, which were not acked")
        if base < device.durable:
            self._violate("I5", f"{entry} brings back what was acked up to {device.durable}")
        if entry.last < device.last:
            self._violate("I4", f"{entry} forgets seqs up to {device.last}")
        self.report.lost_acks += max(0, device.acked - base)
        device.open.clear()
        device.turn, device.closed = entry.turn, not entry.queued
        device.resumed = self.asking.get(entry.device, index)
        device.next, device.acked = base + 1, base
        device.last = max(device.last, entry.last)

    def _sent(self, index: int, device: Device, entry: Sent) -> None:
        self.report.sent += 1
        fresh = Message(device.user, entry, index)
        message = self.messages.setdefault((device.user, entry.client_id), fresh)
        if message.fact[1:3] != (entry.to, entry.content):
            self._violate("log", f"{entry} was sent before with another content")
        message.devices.append(entry.device)
        device.open.append(entry.client_id)

    def _answered(self, index: int, device: Device, entry: Answered) -> None:
        if not device.open or device.open[0] != entry.client_id:
            self._violate("I4", f"{entry} is not the answer that is due")
            return
        device.open.popleft()
        message = self.messages[key := (device.user, entry.client_id)]
        message.unknown |= entry.outcome == "unknown"
        message.refused |= entry.outcome == "refused"
        if entry.outcome == "confirmed":
            message.done = min(message.done, index)
            if message.msg_id not in (0, entry.msg_id):
                self._violate("I3", f"{entry} was confirmed before as {message.msg_id}")
            message.msg_id = entry.msg_id
            if self.owners.setdefault(entry.msg_id, key) != key:
                self._violate("I3", f"{entry} stands for {self.owners[entry.msg_id]} too")
            self._agree(entry, entry.msg_id, message.fact)

    def _told(self, index: int, device: Device, entry: Told) -> None:
        if not device.asked or device.asked[0][0].action != entry.action:
            self._violate("I4", f"{entry} is not the answer that is due")
            return
        asked, begin, acked = device.asked.popleft()
        if entry.outcome != "unknown" and entry.action != "read":
            device.durable = max(device.durable, acked)
        self.past.told(device.user, asked, entry, begin, index)

    def _delivered(self, device: Device, entry: Delivered) -> None:
        if first_seq(entry) != device.next:
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
        if entry.event is not None and entry.event.name == "gap":
            self.report.gaps += known is None
            device.gaps[entry.seq] = entry
            return
        if entry.content != RECALLED and self.past.recall(entry.msg_id)[1] < device.resumed:
            self._violate("I6", f"{entry} was recalled before")
        self._seen(device, entry)

    def _found(self, device: Device, entry: Found) -> None:
        device.found.add(entry.msg_id)
        self._seen(device, entry)

    def _seen(self, device: Device, entry: Delivered | Found) -> None:
        if not entry.to.startswith("g") and device.user not in (entry.sender, entry.to):
            self._violate("I6", f"{entry} is not for {device.user}")
        if self.times.setdefault(entry.msg_id, entry.time) != entry.time:
            self._violate("I4", f"{entry} had the time {self.times[entry.msg_id]} before")
        self._agree(entry, entry.msg_id, (entry.sender, entry.to, entry.content, entry.event))

    def _agree(self, entry: Entry, msg_id: int, fact: Fact) -> None:
        known = self.facts.setdefault(msg_id, fact)
        if fact[2] == RECALLED and self.past.recall(msg_id)[0] == END:
            self._violate("I4", f"{entry} is a stub, and nobody recalled it")
        if RECALLED in (fact[2], known[2]):
            self.facts[msg_id] = known if fact[2] == RECALLED else fact
            fact, known = (*fact[:2], "", None), (*known[:2], "", None)
        if known != fact:
            self._violate("I4", f"{entry} is not what others know as {msg_id}")

    def _acked(self, device: Device, entry: Acked) -> None:
        gap = device.gaps.get(entry.seq)
        first = entry.seq if gap is None else first_seq(gap)
        if first != device.acked + 1 or entry.seq >= device.next:
            self._violate("log", f"{entry} is not what there was to ack")
        device.acked = entry.seq

    # --- what shows only when all is read -----------------------------------------------------

    def conclude(self) -> Report:
        """Judge the whole."""
        heard, groups, wrong = audiences(self.facts, self.times, self.fixed)
        for name, device in self.devices.items():
            if not device.ended and (not device.closed or device.open or device.asked):
                self._violate("log", f"{name} does not end with an empty queue")
            for text in falling(self.facts, device):
                self._violate("I4", f"{name} got {text}")
            self._reached(name, device, heard, groups)
        for user in {device.user for device in self.devices.values()}:
            self._handed_on(user, heard, groups)
        for text in made_up(self.facts, self.owners, self.messages.values()):
            self._violate("I2", text)
        for text in out_of_order(self.messages.items()):
            self._violate("I4", text)
        for text in (*wrong, *forbidden(self.past, self.messages.values())):
            self._violate("I6", text)
        for text in self.past.miscounted(groups):
            self._violate("I7", text)
        report = self.report
        report.confirmed = sum(message.msg_id > 0 for message in self.messages.values())
        report.lowest, report.highest = min(self.facts or [0]), max(self.facts or [0])
        return report

    def _reached(self, name: str, device: Device, heard: Heard, groups: Groups) -> None:
        """Judge what a device got, and what it did not get though it was there."""
        # It was there before that was sent, and so before all with a higher msgId was committed.
        later = [one.msg_id for one in self.messages.values() if one.first > device.since]
        since = min((number for number in later if number), default=END)
        revoked = self.past.revoked(device.user, name)
        lost = {one.fact: one for one in self.messages.values() if not one.msg_id}
        for number, users in heard.items():
            fact = self.facts[number]
            key = self.owners.get(number)
            own = self.messages[key] if key is not None else lost.get(fact)
            got = number in device.numbers
            if (got or number in device.found) and device.user not in users:
                self._violate("I6", f"{name} got {number}, {fact}, and is not one of {users}")
            elif got and own and set(own.devices) == {name}:
                self._violate("I6", f"{name} got its own message {number}")
            elif got and own and own.first > revoked:
                self._violate("I6", f"{name} got {number}, sent after it was signed out")
            elif not got and device.user in users and number >= since and not device.ended:
                mine = (own and name in own.devices) or self.past.recalls(name, fact)
                if not mine and not device.has(number, *place(fact, device.user, groups)):
                    self._violate("I1", f"{name} never got {number}: {fact}")

    def _handed_on(self, user: str, heard: Heard, groups: Groups) -> None:
        """Judge what waited while a user had no device, or one after the other."""
        own = {name: each for name, each in self.devices.items() if each.user == user}
        names = sorted(own, key=lambda name: own[name].since)
        begin = {name: self.starting.get(name, (user, own[name].since))[1] for name in names}
        ghosts = [name for name, (whose, at) in self.starting.items() if whose == user]
        ghosts = [
            name
            for name in ghosts
            if name not in own and self.starting[name][1] > own[names[0]].since
        ]
        follow = pairwise(names)
        if ghosts or own[names[-1]].ended or (len(own) == 1 and names[0] not in self.starting):
            return
        if any(self.ends.get(old, END) > begin[new] for old, new in follow):
            return
        for number, users in heard.items():
            fact = self.facts[number]
            if user not in users or fact[0] == user or self.past.recall(number)[0] != END:
                continue
            if any(self.past.recalls(name, fact) for name in own):
                # As with what a device sends: it has its answer, and only the others are told.
                continue
            if not any(one.has(number, *place(fact, user, groups)) for one in own.values()):
                self._violate("I1", f"{user} never got {number}: {fact}")
