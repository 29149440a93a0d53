"""Groups, several devices, commands and gaps: a sound log passes, each slip in it is found."""

from collections.abc import Callable

import pytest

from tests.model.checker import check
from tests.model.entries import (
    RECALLED,
    Acked,
    Answered,
    Asked,
    Counted,
    Delivered,
    Entry,
    Event,
    Found,
    Left,
    Resumed,
    Sent,
    Starting,
    Told,
)

DEVICES = {"a1": "a", "a2": "a", "b1": "b", "c1": "c"}
JOINED = Event("joined", ("a", "b", "c"), "a")
KICKED = Event("kicked", ("c",), "a")
MUTED = Event("muted", ("b",), "a", "60")


class Log:
    """Writes a log; devices are told what the names of their users say."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.seqs = dict.fromkeys(DEVICES, 0)
        for device, user in DEVICES.items():
            self.entries.append(Resumed(device, 1, user, 0, 0, 0))

    def deliver(
        self,
        devices: str,
        number: int,
        sender: str,
        to: str,
        content: str,
        time: int = 0,
        event: Event | None = None,
    ) -> None:
        for device in devices.split():
            self.seqs[device] += 1
            fact = (number, sender, to, content, time, event)
            self.entries.append(Delivered(device, 1, self.seqs[device], *fact))
            self.entries.append(Acked(device, 1, self.seqs[device]))

    def send(self, device: str, client_id: str, to: str, content: str, number: int = 0) -> None:
        self.entries.append(Sent(device, 1, client_id, to, content))
        outcome = "confirmed" if number else "refused"
        self.entries.append(Answered(device, 1, client_id, outcome, number))  # type: ignore[arg-type]

    def ask(self, device: str, action: str, about: str = "") -> None:
        self.entries += [Asked(device, 1, action, about), Told(device, 1, action, "ok")]

    def close(self) -> list[Entry]:
        for device, user in DEVICES.items():
            self.ask(device, "ping")
            last = self.seqs[device]
            self.entries.append(Resumed(device, 2, user, 0, last, 0))
        return self.entries


def sound() -> list[Entry]:
    log = Log()
    log.ask("a1", "befriend", "b")
    log.deliver("a1 a2 b1 c1", 1, "", "g1", "a group", 1000, JOINED)
    log.send("a1", "x1", "g1", "hello", 2)
    log.deliver("a2 b1 c1", 2, "a", "g1", "hello", 1000)
    log.ask("a1", "kick", "c")
    log.deliver("a1 a2 b1 c1", 3, "", "g1", "c is out", 2000, KICKED)
    log.send("b1", "y1", "g1", "among us", 4)
    log.deliver("a1 a2", 4, "b", "g1", "among us", 2000)
    log.deliver("a1 a2 b1", 5, "", "g1", "b is muted", 3000, MUTED)
    log.send("b1", "y2", "g1", "let me", 0)
    log.send("b1", "y3", "g1", "at last", 6)
    log.deliver("a1 a2", 6, "b", "g1", "at last", 63_000)
    log.send("a1", "x2", "b", "in private", 7)
    log.deliver("a2 b1", 7, "a", "b", "in private", 63_000)
    log.entries.append(Asked("b1", 1, "read", "a 7"))
    log.entries.append(Told("b1", 1, "read", "ok"))
    log.ask("b1", "block", "a")
    log.send("a1", "x3", "b", "refused", 0)
    log.entries.append(Counted("a1", 1, "members", "g1", 2))
    log.entries.append(Counted("a1", 1, "friends", "", 1))
    log.entries.append(Counted("b1", 1, "mark", "a", 7))
    return log.close()


def replaced(log: list[Entry], old: Entry, new: Entry) -> list[Entry]:
    assert log.count(old) == 1
    return [new if entry == old else entry for entry in log]


def without(log: list[Entry], device: str, number: int) -> list[Entry]:
    """Leave a delivery out as a server does that never queued it: what follows moves up."""
    [gone] = [
        entry
        for entry in log
        if isinstance(entry, Delivered) and (entry.device, entry.msg_id) == (device, number)
    ]
    made: list[Entry] = []
    for entry in log:
        if entry.device != device:
            made.append(entry)
        elif isinstance(entry, Delivered | Acked):
            if entry.seq != gone.seq:
                made.append(entry._replace(seq=entry.seq - (entry.seq > gone.seq)))
        elif isinstance(entry, Resumed) and entry.turn == 2:
            made.append(entry._replace(last=entry.last - 1))
        else:
            made.append(entry)
    return made


def more(device: str, fact: Delivered) -> list[Entry]:
    """Have one more delivery at the end."""
    log = sound()
    user = DEVICES[device]
    last = max(e.last for e in log if isinstance(e, Resumed) and e.device == device)
    end = log.pop(log.index(Resumed(device, 2, user, 0, last, 0)))
    assert isinstance(end, Resumed)
    log += [fact._replace(device=device, seq=last + 1), Acked(device, 1, last + 1)]
    return [*log, end._replace(last=last + 1)]


def test_a_sound_log_passes() -> None:
    """Groups, copies, commands and counts that agree are found to."""
    assert check(sound()).violations == []


@pytest.mark.parametrize(
    ("device", "number"),
    [("b1", 2), ("c1", 2), ("a2", 2), ("a1", 4), ("a2", 7), ("b1", 7), ("b1", 5), ("a1", 6)],
)
def test_a_delivery_that_was_never_made_is_missed(device: str, number: int) -> None:
    """Each device of each member, as of the commit, gets each message and event."""
    violations = check(without(sound(), device, number)).violations
    assert any(text.startswith("I1") and device in text for text in violations)


CHANGES: dict[str, tuple[str, Callable[[], list[Entry]]]] = {
    "a member who is out gets more": (
        "I6",
        lambda: more("c1", Delivered("c1", 1, 0, 6, "b", "g1", "at last", 63_000)),
    ),
    "a stranger gets what is private": (
        "I6",
        lambda: more("c1", Delivered("c1", 1, 0, 7, "a", "b", "in private", 63_000)),
    ),
    "the sender's own device gets it": (
        "I6",
        lambda: more("a1", Delivered("a1", 1, 0, 7, "a", "b", "in private", 63_000)),
    ),
    "who was kicked writes": (
        "I6",
        lambda: [
            entry._replace(sender="c")
            if isinstance(entry, Delivered) and entry.msg_id == 4
            else entry._replace(device="c1")
            if isinstance(entry, Sent | Answered) and entry.client_id == "y1"
            else entry
            for entry in sound()
        ],
    ),
    "who is muted writes": (
        "I6",
        lambda: [
            entry._replace(time=62_999)
            if isinstance(entry, Delivered) and entry.msg_id == 6
            else entry
            for entry in sound()
        ],
    ),
    "who is blocked writes": (
        "I6",
        lambda: replaced(
            sound(), Answered("a1", 1, "x3", "refused"), Answered("a1", 1, "x3", "confirmed", 8)
        ),
    ),
    "members are miscounted": (
        "I7",
        lambda: replaced(
            sound(), Counted("a1", 1, "members", "g1", 2), Counted("a1", 1, "members", "g1", 3)
        ),
    ),
    "friends are miscounted": (
        "I7",
        lambda: replaced(
            sound(), Counted("a1", 1, "friends", "", 1), Counted("a1", 1, "friends", "", 0)
        ),
    ),
    "a read mark moved back": (
        "I7",
        lambda: replaced(
            sound(), Counted("b1", 1, "mark", "a", 7), Counted("b1", 1, "mark", "a", 2)
        ),
    ),
    "a stub that nobody asked for": (
        "I4",
        lambda: replaced(
            sound(),
            Delivered("c1", 1, 2, 2, "a", "g1", "hello", 1000),
            Delivered("c1", 1, 2, 2, "a", "g1", RECALLED, 1000),
        ),
    ),
    "two times of one message": (
        "I4",
        lambda: replaced(
            sound(),
            Delivered("c1", 1, 2, 2, "a", "g1", "hello", 1000),
            Delivered("c1", 1, 2, 2, "a", "g1", "hello", 1001),
        ),
    ),
    "two tellings of one event": (
        "I4",
        lambda: replaced(
            sound(),
            Delivered("c1", 1, 3, 3, "", "g1", "c is out", 2000, KICKED),
            Delivered("c1", 1, 3, 3, "", "g1", "c is out", 2000, Event("kicked", ("b",), "a")),
        ),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_slip_is_found(name: str) -> None:
    """Wrong recipients, senders without the right, wrong numbers and stubs are found."""
    rule, make = CHANGES[name]
    assert rule in {text[:2] for text in check(make()).violations}


def test_an_ack_before_an_answered_command_holds() -> None:
    """Acks in front of a command are durable by its answer; those behind it may be lost."""
    log: list[Entry] = [Resumed("a", 1, "a", 0, 0, 0), Resumed("b", 1, "b", 0, 0, 0)]
    log += [Sent("a", 1, "c1", "b", "x"), Answered("a", 1, "c1", "confirmed", 7)]
    log += [Delivered("b", 1, 1, 7, "a", "b", "x")]
    again: list[Entry] = [
        Resumed("b", 2, "b", 1, 1, 1),
        Delivered("b", 2, 1, 7, "a", "b", "x"),
        Acked("b", 2, 1),
        Resumed("b", 3, "b", 0, 1, 0),
        Resumed("a", 2, "a", 0, 0, 0),
    ]
    asked, told, acked = Asked("b", 1, "ping"), Told("b", 1, "ping", "ok"), Acked("b", 1, 1)
    assert check([*log, asked, acked, told, *again]).violations == []
    violations = check([*log, acked, asked, told, *again]).violations
    assert {text[:2] for text in violations} == {"I5"}


def gap_log(found: bool, after: int) -> list[Entry]:
    """A full queue: the second of two messages is in the history, and a gap says so."""
    gap = Event("gap", value="2", chats=(("a", after),))
    log: list[Entry] = [Resumed("a", 1, "a", 0, 0, 0), Resumed("b", 1, "b", 0, 0, 0)]
    for number in (1, 2):
        log.append(Sent("a", 1, f"c{number}", "b", f"x{number}"))
        log.append(Answered("a", 1, f"c{number}", "confirmed", number))
    log += [Delivered("b", 1, 1, 1, "a", "b", "x1"), Acked("b", 1, 1)]
    log += [Delivered("b", 1, 2, 3, "", "", "missed", 0, gap), Acked("b", 1, 2)]
    if found:
        log.append(Found("b", 1, 2, "a", "b", "x2"))
    return [*log, Resumed("b", 2, "b", 0, 2, 0), Resumed("a", 2, "a", 0, 0, 0)]


def test_what_a_gap_hides_is_in_the_history() -> None:
    """A gap speaks for what is missing in the chats that it names, if the history has it."""
    assert check(gap_log(found=True, after=1)).violations == []
    for log in (gap_log(found=False, after=1), gap_log(found=True, after=2)):
        [violation] = check(log).violations
        assert violation.startswith("I1")


def test_the_next_device_takes_over_what_waited() -> None:
    """What the last device had not acked waits for the next one, whose seqs begin anew."""
    log: list[Entry] = [Resumed("a", 1, "a", 0, 0, 0), Starting("b1", "b")]
    log += [Resumed("b1", 1, "b", 0, 0, 0)]
    log += [Sent("a", 1, "c1", "b", "x"), Answered("a", 1, "c1", "confirmed", 7)]
    log += [Left("b1", 1), Starting("b2", "b"), Resumed("b2", 1, "b", 1, 1, 1)]
    log += [Delivered("b2", 1, 1, 7, "a", "b", "x"), Acked("b2", 1, 1)]
    end: list[Entry] = [Resumed("b2", 2, "b", 0, 1, 0), Resumed("a", 2, "a", 0, 0, 0)]
    assert check([*log, *end]).violations == []
    lost = [entry for entry in log if entry.device != "b2"]
    lost += [Starting("b2", "b"), Resumed("b2", 1, "b", 0, 0, 0), Resumed("a", 2, "a", 0, 0, 0)]
    [violation] = check(lost).violations
    assert violation.startswith("I1")


def test_a_recalled_message_comes_as_its_stub() -> None:
    """Who comes back after a recall was answered gets the stub, and before it either."""
    log: list[Entry] = [Resumed("a", 1, "a", 0, 0, 0), Resumed("b", 1, "b", 0, 0, 0)]
    log += [Sent("a", 1, "c1", "b", "x"), Answered("a", 1, "c1", "confirmed", 7)]
    log += [
        Asked("a", 1, "recall", "7"),
        Told("a", 1, "recall", "ok"),
        Resumed("b", 2, "b", 1, 1, 1),
    ]

    def after(content: str) -> list[str]:
        came: list[Entry] = [Delivered("b", 2, 1, 7, "a", "b", content), Acked("b", 2, 1)]
        end: list[Entry] = [Resumed("b", 3, "b", 0, 1, 0), Resumed("a", 2, "a", 0, 0, 0)]
        return check([*log, *came, *end]).violations

    assert after(RECALLED) == []
    [violation] = after("x")
    assert violation.startswith("I6")
