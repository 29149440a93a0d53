"""A real server against a model of it: any mix of people, groups, messages, restarts and crashes.

The model keeps what the contract says in plain lists: each chat is a log of entries, each device
a queue of entries whose place is its `seq`, each stay in a group a slice of its log. Hypothesis
draws what people do; every reply must have the status that the model gives, every delivery be the
next entry of that device's queue, and in between and at the end everybody's lists, histories and
counts must be the model's. The server is a process of its own and is killed now and then, with
messages on the way: all that was confirmed is there afterwards, and what was not is settled by
sending it again under the same clientId.

`PUSHD_TEST_EXAMPLES=500` runs longer than by default.
"""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from pushd.clock import Clock
from tests.conformance.people import all_pages
from tests.conformance.wire import Frame, Wire, client_id, content, frame, lines

T = TypeVar("T")

EXAMPLES = int(os.environ.get("PUSHD_TEST_EXAMPLES", "3"))
STEPS = 100
APART = 25  # steps between two starts of the server, which take longest

PEOPLE = 4
KINDS = {"group": "7", "tag": "3", "link": "6"}
RANK = {"member": 0, "admin": 1, "owner": 2}
RECALL = 120_000  # ms

# A number by which somebody, or something, is chosen.
WHO = st.integers(0, 11)
WHICH = st.integers(0, 4)

Event = dict[str, Any]


@dataclass(eq=False)
class Entry:
    """One message of a chat."""

    chat: str
    sender: str  # "" for the server
    type: str
    text: str  # what a person said
    event: Event | None  # what a program is told
    created: int  # ms
    number: str = ""  # its msgId, once it has been seen
    recalled: int = 0  # in which step


@dataclass(eq=False)
class Device:
    """One device: all that was ever for it, and how far it is."""

    user: "User"
    push_id: str = ""
    wire: Wire | None = None  # while it is online
    queue: list[Entry] = field(default_factory=list)
    acked: int = 0
    got: int = 0  # received, on this connection or acked before it
    since: int = 0  # the step in which it came online


@dataclass(eq=False)
class User:
    """One person, and a connection without a device for their commands."""

    id: str
    phone: str
    wire: Wire
    devices: list[Device] = field(default_factory=list)
    read: dict[str, int] = field(default_factory=dict)  # how much of a chat's log


@dataclass(eq=False)
class Group:
    """One group."""

    id: str
    kind: str
    name: str
    code: str
    roles: dict[str, str] = field(default_factory=dict)
    muted: dict[str, int] = field(default_factory=dict)  # until when, in ms
    mute_all: bool = False
    asking: set[str] = field(default_factory=set)
    stays: dict[str, tuple[int, int | None]] = field(default_factory=dict)  # slices of the log
    dissolved: bool = False

    def rank(self, user: User) -> int:
        """How much somebody may do; -1 for one who is not in."""
        return RANK[self.roles[user.id]] if user.id in self.roles else -1


@dataclass(eq=False)
class Sent:
    """What was confirmed under a clientId."""

    user: User
    message: Frame
    row: Frame
    group: Group | None


class Tower(Clock):
    """The clock of the server's process, which stands in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._turned = 0
        self.turn(0)

    def turn(self, ms: int) -> None:
        """Turn it on."""
        self._turned += ms
        # In place: the server has mapped the file.
        with self._file.open("r+b" if self._file.exists() else "wb") as stream:
            stream.write(self._turned.to_bytes(8, "little"))

    def wall(self) -> int:
        """Give milliseconds since 1970, and what it was turned by."""
        return super().wall() + self._turned


class Machine(RuleBasedStateMachine):
    """What people do, what the model says of it, and what the server says."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Tower(Path(self.folder.name, "clock"))
        self.server: subprocess.Popen[str]
        self.address = ("127.0.0.1", 0)
        self.wires: list[Wire] = []
        self.step = 0
        self.started = 0  # the step of the last start
        self.people: list[User] = []
        self.groups: list[Group] = []
        self.friends: set[frozenset[str]] = set()
        self.requests: set[tuple[str, str]] = set()  # who asked whom
        self.logs: dict[str, list[Entry]] = {}
        self.sent: list[Sent] = []

    # --- the server -----------------------------------------------------------------------

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something, while the server goes on."""
        self.step += 1
        return self.loop.run_until_complete(asyncio.wait_for(work, 30))

    def start(self) -> None:
        """Start a server on the data of last time."""
        command = [sys.executable, "-m", "tests.turned_server", self.folder.name]
        self.server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.server.stdout is not None
        host, _, port = self.server.stdout.readline().strip().rpartition(":")
        self.address = (host, int(port))

    def stop(self) -> None:
        """Stop it; all connections end."""
        self.server.terminate()
        self.end(0)

    def end(self, code: int) -> None:
        """Wait for its end, and close what is left of it."""
        assert self.server.wait(15) == code
        assert self.server.stdout is not None
        self.server.stdout.close()
        for wire in self.wires:
            wire.close()
        self.wires.clear()

    async def dial(self) -> Wire:
        """Open a connection."""
        wire = await Wire.connect(self.address)
        self.wires.append(wire)
        return wire

    @initialize()
    def settle(self) -> None:
        """Four people, of whom the first has two devices and all others as friends; two groups."""

        self.start()

        async def work() -> None:
            wires = [await self.dial() for _ in range(PEOPLE)]
            await asyncio.gather(*(wire.register() for wire in wires))
            wires.sort(key=lambda wire: int(wire.user_id))
            self.people = [User(wire.user_id, wire.phone, wire) for wire in wires]
            owners = [self.people[0], *self.people]
            devices = await asyncio.gather(*(self.first(user) for user in owners))
            for device in devices:
                device.user.devices.append(device)

        self.run(work())
        for a, b in ((0, 1), (0, 2), (1, 2), (0, 3)):
            self.add_friend(a, b)
            self.add_friend(b, a)
        self.create_group(0, "group", {1, 2})
        self.create_group(1, "tag", {2})
        self.set_role(0, 1, 0, "admin")

    async def first(self, user: User) -> Device:
        """Make a device."""
        device = Device(user, wire=await self.dial())
        assert device.wire is not None
        await device.wire.login(user.phone)
        device.push_id = (await device.wire.start())["pushId"]
        return device

    def teardown(self) -> None:
        """Compare everything once more, and leave nothing behind."""
        try:
            if self.people:
                self.run(self.compare())
            self.stop()
        finally:
            if self.server.poll() is None:
                self.server.kill()
                self.end(-signal.SIGKILL)
            self.loop.close()
            self.folder.cleanup()

    # --- choosing -------------------------------------------------------------------------

    def user(self, number: int) -> User:
        """Choose a person."""
        return self.people[number % PEOPLE]

    def group(self, number: int) -> Group:
        """Choose a group."""
        return self.groups[number % len(self.groups)]

    def member(self, group: Group, number: int) -> User:
        """Choose somebody, mostly one who is in a group, and often one of its leaders."""
        leaders = [user for user in group.roles if RANK[group.roles[user]] > 0]
        choice = [*leaders, *group.roles, *(each.id for each in self.people)]
        return self.by_id(choice[number % len(choice)])

    def device(self, number: int) -> Device:
        """Choose a device of anybody's."""
        devices = [device for user in self.people for device in user.devices]
        return devices[number % len(devices)]

    def by_id(self, user: str) -> User:
        """Find a person."""
        [found] = [each for each in self.people if each.id == user]
        return found

    def are_friends(self, one: User, other: User) -> bool:
        """Tell whether two people are friends."""
        return frozenset((one.id, other.id)) in self.friends

    # --- what the model does ----------------------------------------------------------------

    def note(
        self,
        chat: str,
        to: Iterable[str],
        *,
        sender: str = "",
        type: str = "0",
        text: str = "",
        event: Event | None = None,
        without: Device | None = None,
        number: str = "",
    ) -> Entry:
        """Add an entry to a chat and to the queues of people."""
        entry = Entry(chat, sender, type, text, event, self.clock.wall(), number)
        self.logs.setdefault(chat, []).append(entry)
        for user in to:
            for device in self.by_id(user).devices:
                if device is not without:
                    device.queue.append(entry)
        return entry

    def tell(self, group: Group, name: str, **fields: Any) -> None:
        """Add a notice of the server's own to a group."""
        event = {"name": name, "groupId": group.id, **fields}
        self.note(group.id, group.roles, event=event)

    def enter(self, group: Group, users: list[str], by: User) -> None:
        """Let people in."""
        first = len(self.logs.setdefault(group.id, []))
        for user in users:
            group.roles[user] = "member"
            group.stays[user] = (first, None)
            group.asking.discard(user)
            self.by_id(user).read[group.id] = first
        self.tell(group, "joined", userIds=users, by=by.id)

    def out(self, group: Group, users: list[str]) -> None:
        """Take people out; what was said until now is all that they read."""
        for user in users:
            group.stays[user] = (group.stays[user][0], len(self.logs[group.id]))
            del group.roles[user]

    def readable(self, user: User, chat: str) -> list[Entry]:
        """What somebody may read of a chat."""
        log = self.logs.get(chat, [])
        found = [group for group in self.groups if group.id == chat]
        if not found:
            return log if user.id in chat.split("-") else []
        first, final = found[0].stays.get(user.id, (0, 0))
        return log[first:final]

    def may_speak(self, group: Group, user: User, type: str) -> int:
        """The status of a message to a group."""
        if group.rank(user) < 0:
            return 4005
        leads = group.rank(user) > 0
        if type in KINDS.values() and type != KINDS[group.kind]:
            return 4004
        if (type == "4" or group.mute_all) and not leads:
            return 4004
        return 4004 if group.muted.get(user.id, 0) > self.clock.wall() else 1

    def may_whisper(self, one: User, other: User) -> int:
        """The status of a message from one person to another."""
        return 1 if self.are_friends(one, other) and not self.blocks(other, one) else 4004

    def blocks(self, one: User, other: User) -> bool:
        """Tell whether somebody takes nothing from another person."""
        return False

    # --- asking the server --------------------------------------------------------------------

    def ask(self, user: User, cmd: str, expected: int, **fields: object) -> Any:
        """Run a command that must have this status; return its result."""
        reply = self.run(user.wire.command(cmd, **fields))
        assert reply["status"] == expected, f"{cmd} {fields}: {expected} expected: {reply}"
        return reply["result"]

    def lead(
        self, user: User, group: Group, rank: int, cmd: str, status: int = 1, **fields: object
    ) -> bool:
        """Run a command for those of a rank; tell whether it was done."""
        if group.rank(user) < rank:
            status = 4005 if group.rank(user) < 0 else 4004
        result = self.ask(user, cmd, status, groupId=group.id, **fields)
        if status == 1 and not isinstance(result, list) and cmd != "dissolve_group":
            assert result["id"] == group.id
        return status == 1

    # --- people -----------------------------------------------------------------------------

    @rule(a=WHO, b=WHO, end=st.booleans())
    def friends_or_not(self, a: int, b: int, end: bool) -> None:
        """Ask for friendship, or end it."""
        if end:
            self.delete_friend(a, b)
        else:
            self.add_friend(a, b)

    def add_friend(self, a: int, b: int) -> None:
        """Ask for friendship, or say yes by asking back."""
        one, other = self.user(a), self.user(b)
        if one is other:
            self.ask(one, "add_friend", 4004, userId=other.id)
        elif self.are_friends(one, other):
            self.ask(one, "add_friend", 12000, userId=other.id)
        elif self.blocks(other, one):
            self.ask(one, "add_friend", 4004, userId=other.id)
        elif (other.id, one.id) in self.requests:
            self.ask(one, "add_friend", 1, userId=other.id)
            self.requests -= {(other.id, one.id), (one.id, other.id)}
            self.friends.add(frozenset((one.id, other.id)))
            event = {"name": "friend_accepted", "userId": one.id, "description": ""}
            self.note("system", [other.id], event=event)
        else:
            self.ask(one, "add_friend", 1, userId=other.id)
            if (one.id, other.id) not in self.requests:
                self.requests.add((one.id, other.id))
                event = {"name": "friend_request", "userId": one.id, "description": ""}
                # The request came by a connection without a device.
                self.note(
                    pair(one, other), [other.id, one.id], sender=one.id, type="2", event=event
                )

    def delete_friend(self, a: int, b: int) -> None:
        """End a friendship; groups are not touched."""
        one, other = self.user(a), self.user(b)
        friends = self.are_friends(one, other)
        self.ask(one, "delete_friend", 1 if friends else 4004, userId=other.id)
        self.friends.discard(frozenset((one.id, other.id)))

    # --- groups -----------------------------------------------------------------------------

    @precondition(lambda self: len(self.groups) < 5)
    @rule(a=WHO, kind=st.sampled_from(sorted(KINDS)), who=st.sets(st.integers(0, 3)))
    def create_group(self, a: int, kind: str, who: set[int]) -> None:
        """Make a group with friends; with anybody else there is none."""
        owner = self.user(a)
        others = [self.user(number) for number in sorted(who) if self.user(number) is not owner]
        name = f"{kind} {len(self.groups)}"
        fields = {"name": name, "kind": kind, "userIds": [each.id for each in others]}
        if not all(self.are_friends(owner, each) for each in others):
            self.ask(owner, "create_group", 4004, **fields)
            return
        made = self.ask(owner, "create_group", 1, **fields)
        group = Group(made["id"], kind, name, made.get("code", ""))
        self.groups.append(group)
        self.enter(group, [owner.id, *(each.id for each in others)], owner)
        group.roles[owner.id] = "owner"

    @rule(a=WHO, g=WHICH)
    def join(self, a: int, g: int) -> None:
        """Join a tag by its id, a link by its code, and ask a group."""
        user, group = self.user(a), self.group(g)
        by_code = group.kind == "link"
        named = {"code": group.code} if by_code else {"groupId": group.id}
        self.ask(user, "join_group", 4005 if group.dissolved else 1, **named)
        if group.dissolved or user.id in group.roles:
            return
        if group.kind != "group":
            self.enter(group, [user.id], user)
        elif user.id not in group.asking:
            group.asking.add(user.id)
            event = {"name": "join_request", "groupId": group.id, "userId": user.id}
            event["description"] = ""
            for leader in [each for each in group.roles if RANK[group.roles[each]] > 0]:
                chat = pair(user, self.by_id(leader))
                self.note(chat, [leader], sender=user.id, type="2", event=event)

    @rule(a=WHO, b=WHO, g=WHICH, yes=st.booleans())
    def answer(self, a: int, b: int, g: int, yes: bool) -> None:
        """Let somebody in who asked, or not."""
        group = self.group(g)
        leader, user = self.member(group, a), self.member(group, b)
        inside = user.id in group.roles
        status = 1 if user.id in group.asking or (inside and yes) else 4005
        cmd = "accept_join" if yes else "reject_join"
        if self.lead(leader, group, 1, cmd, status, userId=user.id) and not inside:
            group.asking.discard(user.id)
            if yes:
                self.enter(group, [user.id], leader)

    @rule(a=WHO, who=st.sets(st.integers(0, 3), min_size=1, max_size=2), g=WHICH)
    def invite(self, a: int, who: set[int], g: int) -> None:
        """Bring friends in: all or nobody."""
        group = self.group(g)
        host = self.member(group, a)
        users = [self.user(number) for number in sorted(who)]
        fresh = [each.id for each in users if each.id not in group.roles]
        good = all(self.are_friends(host, each) for each in users if each.id in fresh)
        listed = [each.id for each in users]
        if self.lead(host, group, 0, "invite", 1 if good else 4004, userIds=listed) and fresh:
            self.enter(group, fresh, host)

    @rule(a=WHO, who=st.sets(st.integers(0, 3), min_size=1, max_size=2), g=WHICH)
    def kick(self, a: int, who: set[int], g: int) -> None:
        """Put people out: all or nobody."""
        group = self.group(g)
        leader = self.member(group, a)
        users = [self.user(number) for number in sorted(who)]
        status = 1
        for each in users:
            if group.rank(each) < 0 or group.rank(each) >= group.rank(leader):
                status = 4005 if group.rank(each) < 0 else 4004
                break
        listed = [each.id for each in users]
        if self.lead(leader, group, 1, "kick", status, userIds=listed):
            self.tell(group, "kicked", userIds=listed, by=leader.id)
            self.out(group, listed)

    @rule(a=WHO, g=WHICH)
    def leave(self, a: int, g: int) -> None:
        """Leave, but not as the owner."""
        group = self.group(g)
        user = self.member(group, a)
        if self.lead(user, group, 0, "leave_group", 4004 if group.rank(user) == 2 else 1):
            self.tell(group, "left", userIds=[user.id], by=user.id)
            self.out(group, [user.id])

    @precondition(lambda self: len(self.groups) > 2)
    @rule(a=WHO, g=WHICH)
    def dissolve(self, a: int, g: int) -> None:
        """End a group."""
        group = self.group(g)
        user = self.member(group, a)
        if self.lead(user, group, 2, "dissolve_group"):
            self.tell(group, "dissolved")
            self.out(group, list(group.roles))
            group.dissolved = True
            group.asking.clear()

    @rule(a=WHO, b=WHO, g=WHICH, role=st.sampled_from([*RANK]))
    def set_role(self, a: int, b: int, g: int, role: str) -> None:
        """Make somebody owner, admin or member."""
        group = self.group(g)
        owner, user = self.member(group, a), self.member(group, b)
        status = 4005 if group.rank(user) < 0 else 4004 if user is owner else 1
        if not self.lead(owner, group, 2, "set_role", status, userId=user.id, role=role):
            return
        if group.roles[user.id] == role:
            return
        if role == "owner":
            group.roles[owner.id] = "admin"
            group.muted.pop(user.id, None)
        group.roles[user.id] = role
        self.tell(group, "role", userId=user.id, role=role, by=owner.id)

    @rule(
        a=WHO,
        b=WHO,
        g=WHICH,
        seconds=st.sampled_from([0, 60, 600]),
    )
    def mute(self, a: int, b: int, g: int, seconds: int) -> None:
        """Take somebody's word away for a time, or give it back."""
        group = self.group(g)
        leader, user = self.member(group, a), self.member(group, b)
        status = 1
        if group.rank(user) < 0 or group.rank(user) >= group.rank(leader):
            status = 4005 if group.rank(user) < 0 else 4004
        if self.lead(leader, group, 1, "mute", status, userId=user.id, seconds=seconds):
            group.muted[user.id] = self.clock.wall() + seconds * 1000
            self.tell(group, "muted", userId=user.id, seconds=seconds, by=leader.id)

    @rule(a=WHO, g=WHICH, all_=st.booleans())
    def mute_all(self, a: int, g: int, all_: bool) -> None:
        """Leave the word to owner and admins, or to all."""
        group = self.group(g)
        leader = self.member(group, a)
        if self.lead(leader, group, 1, "update_group", muteAll=all_):
            group.mute_all = all_
            changed = {"muteAll": all_}
            self.tell(group, "group_updated", by=leader.id, changed=changed)

    # --- messages ---------------------------------------------------------------------------

    def post(self, device: Device, message: Frame, expected: int) -> Frame:
        """Send one message, from a device or its user's other connection; return its row."""
        wire = device.wire or device.user.wire
        reply = self.run(wire.exchange(frame([message])))
        assert reply["status"] == expected, f"{message}: {expected} expected: {reply}"
        if expected != 1:
            assert [row["status"] for row in reply["failed"]] == [expected]
            return {}
        [row] = reply["result"]
        assert isinstance(row, dict)
        return row

    @rule(
        d=WHICH,
        g=WHICH,
        types=st.lists(st.sampled_from(["", "", "", "3", "4", "5", "7"]), min_size=1, max_size=5),
    )
    def speak(self, d: int, g: int, types: list[str]) -> None:
        """Say something in a group, each time from the next device."""
        group = self.group(g)
        for number, type in enumerate(types):
            device = self.device(d + number)
            kind = type or KINDS[group.kind]
            message = said(kind, f"{self.step}", chatId=group.id)
            status = self.may_speak(group, device.user, kind)
            row = self.post(device, message, status)
            if status == 1:
                assert row["chatId"] == group.id
                self.spread(device, group.roles, message, row)
                self.sent.append(Sent(device.user, message, row, group))

    @rule(d=WHICH, b=WHO)
    def whisper(self, d: int, b: int) -> None:
        """Say something to a friend."""
        device, other = self.device(d), self.user(b)
        status = self.may_whisper(device.user, other)
        message = said("1", f"{self.step}", toId=other.id)
        row = self.post(device, message, status)
        if status == 1:
            self.spread(device, [device.user.id, other.id], message, row)
            self.sent.append(Sent(device.user, message, row, None))

    def spread(self, device: Device, to: Iterable[str], message: Frame, row: Frame) -> None:
        """Note what was said: for all devices but the one that said it."""
        self.note(
            row["chatId"],
            to,
            sender=device.user.id,
            type=message["type"],
            text=content(message),
            number=row["msgId"],
            without=device if device.wire else None,
        )

    @precondition(lambda self: self.sent)
    @rule(n=st.integers(0, 5), d=st.integers(0, 1), other=st.booleans())
    def repeat(self, n: int, d: int, other: bool) -> None:
        """Send something again, from any device: confirmed again, whatever has changed since."""
        sent = self.sent[-1 - n % len(self.sent)]
        device = sent.user.devices[d % len(sent.user.devices)]
        if other:
            info = [{"category": "0", "content": "something else"}]
            self.post(device, {**sent.message, "info": info}, 4003)
        else:
            assert self.post(device, sent.message, 1) == sent.row

    @precondition(lambda self: self.sent)
    @rule(n=st.integers(0, 5), a=WHO)
    def recall(self, n: int, a: int) -> None:
        """Take back what was said."""
        sent, user = self.sent[-1 - n % len(self.sent)], self.user(a)
        log = self.logs[sent.row["chatId"]]
        [entry] = [each for each in log if each.number == sent.row["msgId"]]
        group = sent.group
        seen = entry in self.readable(user, entry.chat)
        inside = group is None or user.id in group.roles
        leads = group is not None and group.rank(user) > 0
        young = self.clock.wall() - entry.created <= RECALL
        own = entry.sender == user.id and (young or entry.recalled)
        status = 1 if inside and (leads or own) else 4004
        if not seen:
            status = 4005
        self.ask(user, "recall", status, msgId=entry.number)
        if status != 1 or entry.recalled:
            return
        entry.recalled = self.step
        event = {"name": "recalled", "chatId": entry.chat, "msgId": entry.number, "by": user.id}
        if group is not None:
            self.note(group.id, group.roles, event=event)
            return
        for each in entry.chat.split("-"):
            self.note("system", [each], event=event)

    @rule(a=WHO, c=st.integers(0, 20), n=st.integers(0, 9))
    def read(self, a: int, c: int, n: int) -> None:
        """Read a chat up to some message; the mark never moves back."""
        user = self.user(a)
        chats = [chat for chat in self.logs if chat != "system" and self.readable(user, chat)]
        if not chats:
            return
        chat = chats[c % len(chats)]
        log = self.logs[chat]
        known = [entry for entry in self.readable(user, chat) if entry.number]
        if not known:
            return
        entry = known[-1 - n % len(known)]

        async def work() -> None:
            await user.wire.read_mark(chatId=chat, msgId=entry.number)
            await user.wire.fence()

        self.run(work())
        user.read[chat] = max(user.read.get(chat, 0), log.index(entry) + 1)

    @rule(seconds=st.sampled_from([30, 61, 130]))
    def wait(self, seconds: int) -> None:
        """Let time pass: mutes end, and what is old cannot be recalled."""
        self.clock.turn(seconds * 1000)

    # --- devices ----------------------------------------------------------------------------

    @rule(d=WHICH, left=st.integers(0, 3), take=st.booleans())
    def receive(self, d: int, left: int, take: bool) -> None:
        """Receive what has come, and ack all of it but the last ones."""
        device = self.device(d)
        if device.wire is not None:
            self.run(self.collect(device))
            if take:
                self.run(self.ack(device, device.got - left))

    @rule(d=WHICH)
    def go(self, d: int) -> None:
        """Go offline, or come back: what is not acked comes again."""
        device = self.device(d)
        if device.wire is not None:
            self.wires.remove(device.wire)
            device.wire.abort()
            device.wire = None
        else:
            self.run(self.come_back(device))

    @precondition(lambda self: self.step > self.started + APART)
    @rule()
    def restart(self) -> None:
        """Stop the server and start it again; all who were online come back."""

        online = self.online()
        self.stop()
        self.start_again()
        self.run(self.all_back(online))

    @precondition(lambda self: self.step > self.started + APART)
    @rule(a=WHO, g=WHICH, b=WHO, count=st.integers(0, 6), after=st.integers(0, 4))
    def crash(self, a: int, g: int, b: int, count: int, after: int) -> None:
        """Kill the server while messages are on their way, and send these again afterwards."""
        user, group, other = self.user(a), self.group(g), self.user(b)
        messages = [
            said("1", f"{self.step} {n}", toId=other.id)
            if n % 2
            else said(KINDS[group.kind], f"{self.step} {n}", chatId=group.id)
            for n in range(count)
        ]
        online = self.online()
        packet = lines(*(frame([message]) for message in messages))
        self.run(user.wire.send_raw(packet))
        # Long enough, now and then, for some of them.
        self.run(asyncio.sleep(after * 0.001))
        self.server.send_signal(signal.SIGKILL)
        self.end(-signal.SIGKILL)
        self.start_again()
        for message in messages:
            self.settle_one(user, message, group if "chatId" in message else None, other)
        self.run(self.all_back(online))

    def settle_one(self, user: User, message: Frame, group: Group | None, other: User) -> None:
        """Send again what may have been stored: once it is confirmed, it is there once."""
        if group is not None:
            status = self.may_speak(group, user, message["type"])
        else:
            status = self.may_whisper(user, other)
        reply = self.run(user.wire.exchange(frame([message])))
        assert reply["status"] == status, f"{message}: {status} expected: {reply}"
        if status != 1:
            return
        [row] = reply["result"]
        to = group.roles if group is not None else [user.id, other.id]
        self.note(
            row["chatId"],
            to,
            sender=user.id,
            type=message["type"],
            text=content(message),
            number=row["msgId"],
        )
        self.sent.append(Sent(user, message, row, group))

    def online(self) -> list[Device]:
        """List the devices that are connected."""
        return [each for user in self.people for each in user.devices if each.wire]

    def start_again(self) -> None:
        """Start the server, and log everybody in without a device."""
        self.start()
        for device in self.online():
            device.wire = None

        async def work() -> None:
            for user in self.people:
                user.wire = await self.dial()
                await user.wire.login(user.phone)

        self.run(work())

    async def all_back(self, online: list[Device]) -> None:
        """Take devices up again."""
        for device in online:
            await self.come_back(device)
        self.started = self.step

    async def come_back(self, device: Device) -> None:
        """Take a device up again."""
        device.wire = await self.dial()
        reply = await device.wire.restart(device.push_id)
        waiting = len(device.queue) - device.acked
        assert reply["queued"] == waiting
        assert reply["last"] == len(device.queue)
        assert reply["first"] == (device.acked + 1 if waiting else 0)
        device.got = device.acked
        device.since = self.step

    async def collect(self, device: Device) -> None:
        """Require that exactly what is for a device has come, in order."""
        wire = device.wire
        assert wire is not None
        while device.got < len(device.queue):
            for message in (await wire.packet())["message"]:
                assert device.got < len(device.queue), f"not for this device: {message}"
                entry = device.queue[device.got]
                device.got += 1
                assert message["seq"] == device.got
                # What was on its way when it was recalled may still have its text.
                stale = device.since < entry.recalled
                check(message, entry, device.user, stale=stale)
        await wire.expect_nothing()

    async def ack(self, device: Device, upto: int) -> None:
        """Ack all up to a seq."""
        assert device.wire is not None
        if upto > device.acked:
            await device.wire.ack(upto)
            await device.wire.fence()
            device.acked = upto

    # --- comparing --------------------------------------------------------------------------

    @rule(a=WHO)
    def look(self, a: int) -> None:
        """Look at everything that one person can see."""
        self.run(self.compare_user(self.user(a)))

    async def compare(self) -> None:
        """Compare everything."""
        for user in self.people:
            for device in user.devices:
                if device.wire is None:
                    await self.come_back(device)
                await self.collect(device)
        for user in self.people:
            await self.compare_user(user)

    async def compare_user(self, user: User) -> None:
        """Compare somebody's groups, chats and histories."""
        mine = {group["id"]: group["role"] for group in await all_pages(user.wire, "my_groups")}
        assert mine == {
            group.id: group.roles[user.id] for group in self.groups if user.id in group.roles
        }
        for group in self.groups:
            await self.compare_group(user, group)
        listed = {each["chatId"]: each for each in await all_pages(user.wire, "chats", size=100)}
        listed.pop("system", None)
        chats = [chat for chat in self.logs if chat != "system" and self.readable(user, chat)]
        assert set(listed) == set(chats)
        for chat in chats:
            await self.compare_chat(user, chat, listed[chat])

    async def compare_group(self, user: User, group: Group) -> None:
        """Compare who is in a group, as far as somebody may see that."""
        reply = await user.wire.command("group_members", groupId=group.id)
        if user.id not in group.roles:
            assert reply["status"] == 4005
            return
        found = {each["user"]["id"]: each["role"] for each in reply["result"]}
        assert found == group.roles
        assert list(found.values()).count("owner") == 1
        now = self.clock.wall()
        muted = {each["user"]["id"] for each in reply["result"] if each["mutedUntil"]}
        assert muted == {each for each in group.roles if group.muted.get(each, 0) > now}
        [shown] = [
            each for each in await all_pages(user.wire, "my_groups") if each["id"] == group.id
        ]
        assert shown["members"] == len(group.roles)
        assert group.roles[shown["owner"]] == "owner"
        reply = await user.wire.command("join_requests", groupId=group.id)
        if group.rank(user) > 0:
            assert {each["user"]["id"] for each in reply["result"]} == group.asking

    async def compare_chat(self, user: User, chat: str, listed: Frame) -> None:
        """Compare what somebody reads of a chat, what is unread, and what is the newest."""
        expected = self.readable(user, chat)
        found: list[Frame] = []
        reply = await user.wire.command("history", chatId=chat, limit=7)
        found = reply["result"]
        while "next" in reply:
            reply = await user.wire.command("history", chatId=chat, limit=7, before=reply["next"])
            found = reply["result"] + found
        assert len(found) == len(expected)
        for message, entry in zip(found, expected, strict=True):
            check(message, entry, user)
        check(listed["last"], expected[-1], user)
        log = self.logs[chat]
        unread = [
            entry
            for entry in log[user.read.get(chat, 0) :]
            if entry in expected and entry.sender != user.id and not entry.recalled
        ]
        assert listed["unread"] == len(unread)


def check(message: Frame, entry: Entry, user: User, *, stale: bool = False) -> None:
    """Require that a message is this entry, as one person sees it."""
    entry.number = entry.number or message["msgId"]
    assert message["msgId"] == entry.number, f"another message than {entry}: {message}"
    assert message["chatId"] == entry.chat
    assert (message["fromId"], message["type"]) == (entry.sender, entry.type)
    if entry.event is not None:
        assert message["event"] == entry.event
    elif entry.recalled and not (stale and "recalled" not in message):
        assert message["recalled"] is True
        assert content(message) == ""
    else:
        assert content(message) == entry.text
        assert "recalled" not in message
        assert ("clientId" in message) == (entry.sender == user.id)


def pair(one: User, other: User) -> str:
    """Give the chatId of two people."""
    return "-".join(sorted((one.id, other.id), key=int))


def said(type: str, text: str, **fields: str) -> Frame:
    """Make a message of one text."""
    infos = [{"category": "0", "content": f"text {text}"}]
    return {"type": type, "info": infos, "clientId": client_id(), **fields}


TestModel: Callable[..., Any] = Machine.TestCase
TestModel.settings = settings(  # type: ignore[attr-defined]  # Hypothesis reads it there
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
TestModel = pytest.mark.slow(pytest.mark.timeout(60 + 20 * EXAMPLES)(TestModel))
