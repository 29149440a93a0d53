"""The state machine of `tests/test_model.py` with the commands that it leaves out.

    blocks and unblocks · requests accepted and rejected by their commands · aliases, names and
    descriptions · search by name, by phone and in messages · privacy and presence · files, whole
    and in parts, sent and read · new devices, sign_out, logout, change_password · reports ·
    accounts that come, write and are deleted

What it knows of all others and of crashes is inherited. `main` is the long run:
`python -m tests.fuzz.wide --machines 2000 --steps 50`.
"""

import argparse
import base64
import os
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from tests.conformance.people import all_pages, ids
from tests.conformance.wire import PASSWORD, Closed, Frame, client_id, frame
from tests.model.record import record
from tests.test_model import WHICH, WHO, Device, Entry, Machine, User, said

OTHER_PASSWORD = "Walrus-5512"
MOST_DEVICES = 3

# What a run did, over all machines.
DONE: Counter[str] = Counter()


@dataclass(eq=False)
class File:
    """A stored file, who owns it and in which messages it was sent."""

    path: str
    content: bytes
    owner: User
    sent: list[Entry]


class Wide(Machine):
    """More of what people do."""

    def __init__(self) -> None:
        super().__init__()
        self.blocked: set[tuple[str, str]] = set()  # who blocks whom
        self.aliases: dict[tuple[str, str], str] = {}  # whose name for whom
        self.names: dict[str, str] = {}
        self.descriptions: dict[str, str] = {}
        self.hidden: set[tuple[str, str]] = set()  # who has switched off what
        self.files: list[File] = []

    def teardown(self) -> None:
        """Count what was done."""
        DONE["machines"] += 1
        DONE["steps"] += self.step
        super().teardown()

    def blocks(self, one: User, other: User) -> bool:
        """Tell whether somebody takes nothing from another person."""
        return (one.id, other.id) in self.blocked

    # --- people -----------------------------------------------------------------------------

    @rule(a=WHO, b=WHO, on=st.booleans())
    def block(self, a: int, b: int, on: bool) -> None:
        """Take nothing from somebody any more, or again; their requests are gone."""
        one, other = self.user(a), self.user(b)
        if one is other:
            self.ask(one, "block", 4004, userId=other.id)
        elif on:
            self.ask(one, "block", 1, userId=other.id)
            self.blocked.add((one.id, other.id))
            self.requests -= {(one.id, other.id), (other.id, one.id)}
        else:
            self.ask(one, "unblock", 1, userId=other.id)
            self.blocked.discard((one.id, other.id))

    @rule(a=WHO, b=WHO, yes=st.booleans())
    def settle_request(self, a: int, b: int, yes: bool) -> None:
        """Accept or reject somebody's request for friendship."""
        one, other = self.user(a), self.user(b)
        asked = (other.id, one.id) in self.requests
        if not yes:
            self.ask(one, "reject_friend", 1 if asked else 4005, userId=other.id)
            self.requests.discard((other.id, one.id))
        elif self.are_friends(one, other):
            self.ask(one, "accept_friend", 12000, userId=other.id)
        elif not asked:
            self.ask(one, "accept_friend", 4005, userId=other.id)
        else:
            self.ask(one, "accept_friend", 1, userId=other.id)
            self.requests -= {(one.id, other.id), (other.id, one.id)}
            self.friends.add(frozenset((one.id, other.id)))
            event = {"name": "friend_accepted", "userId": one.id, "description": ""}
            self.note("system", [other.id], event=event)

    def delete_friend(self, a: int, b: int) -> None:
        """End a friendship, and the names that each had for the other."""
        one, other = self.user(a), self.user(b)
        super().delete_friend(a, b)
        self.aliases.pop((one.id, other.id), None)
        self.aliases.pop((other.id, one.id), None)

    @rule(a=WHO, b=WHO, clear=st.booleans())
    def set_alias(self, a: int, b: int, clear: bool) -> None:
        """Give a friend a name of one's own, or take it away."""
        one, other = self.user(a), self.user(b)
        alias = "" if clear else f"alias {self.step}"
        friends = self.are_friends(one, other)
        self.ask(one, "set_alias", 1 if friends else 4004, userId=other.id, alias=alias)
        if friends:
            self.aliases[one.id, other.id] = alias

    @rule(a=WHO)
    def rename(self, a: int) -> None:
        """Take another name and description."""
        user = self.user(a)
        name, desc = f"N\u00c4 {user.id} {self.step}"[:15], f"about {self.step}"
        made = self.ask(user, "complete_account", 1, username=name, desc=desc)
        assert (made["user"]["username"], made["user"]["desc"]) == (name, desc)
        self.names[user.id], self.descriptions[user.id] = name, desc

    @rule(a=WHO, b=WHO)
    def find(self, a: int, b: int) -> None:
        """Look for somebody by a part of the name, and by the whole phone."""
        user, other = self.user(a), self.user(b)
        found = ids(self.ask_any(user, "search", username=f"n\u00e4 {other.id}"))
        assert found == ([other.id] if other.id in self.names else [])
        shown = user is other or (other.id, "findByPhone") not in self.hidden
        found = self.ask_any(user, "search", phone=other.phone)
        assert ids(found) == ([other.id] if shown else [])
        assert self.ask_any(user, "search", username=f"{other.id} nobody") == []

    def ask_any(self, user: User, cmd: str, **fields: object) -> Any:
        """Run a search, which says 0 when it finds nothing."""
        reply = self.run(user.wire.command(cmd, **fields))
        assert reply["status"] == (1 if reply["result"] else 0), reply
        return reply["result"]

    @rule(a=WHO, what=st.sampled_from(["findByPhone", "showPresence"]), on=st.booleans())
    def hide(self, a: int, what: str, on: bool) -> None:
        """Be found by one's phone or seen online, or not."""
        user = self.user(a)
        privacy = self.ask(user, "set_privacy", 1, **{what: on})["privacy"]
        (self.hidden.discard if on else self.hidden.add)((user.id, what))
        for name in ("findByPhone", "showPresence"):
            assert privacy[name] == ((user.id, name) not in self.hidden)

    @rule(a=WHO, b=WHO)
    def look_whether_online(self, a: int, b: int) -> None:
        """See whether a friend is online, if they show it."""
        user, other = self.user(a), self.user(b)
        status = 1 if self.are_friends(user, other) else 4004
        found = self.ask(user, "presence", status, userIds=[other.id])
        if status == 1 and (other.id, "showPresence") in self.hidden:
            assert (found[0]["online"], found[0]["lastSeen"]) == (False, "")
        elif status == 1 and any(device.wire for device in other.devices):
            assert found[0]["online"] is True

    @rule(a=WHO, b=WHO)
    def report(self, a: int, b: int) -> None:
        """Tell the operator about somebody."""
        self.ask(self.user(a), "report", 1, userId=self.user(b).id, reason="x")

    # --- messages and files -----------------------------------------------------------------

    @rule(a=WHO, n=st.integers(1, 60))
    def search_messages(self, a: int, n: int) -> None:
        """Find all messages of one's chats that hold a text, newest first."""
        user, text = self.user(a), f"TEXT {n}"
        found = self.run(all_pages(user.wire, "search_messages", text=text, size=5))
        numbers = [int(each["msgId"]) for each in found]
        assert numbers == sorted(numbers, reverse=True)
        expected = [
            entry
            for chat in self.logs
            for entry in self.readable(user, chat)
            if text.lower() in entry.text and not entry.recalled
        ]
        assert len(found) == len(expected), (found, expected)
        known = {entry.number for entry in expected if entry.number}
        assert known <= {each["msgId"] for each in found}

    @rule(a=WHO, parts=st.booleans())
    def save(self, a: int, parts: bool) -> None:
        """Store a file, at once or in two parts."""
        user = self.user(a)
        data = f"file {self.step} {client_id()}".encode()
        first, second = (base64.b64encode(part).decode() for part in (data[:9], data[9:]))
        whole = base64.b64encode(data).decode()
        if parts:
            made = self.ask(user, "save_part", 1, offset=0, content=first)
            fields = {"upload": made["upload"], "offset": made["offset"], "content": second}
            made = self.ask(user, "save_part", 1, **fields, name="x", done=True)
            again = self.ask(user, "save_part", 1, **fields, name="x", done=True)
            assert again == made
        else:
            made = self.ask(user, "save_file", 1, name="../x", content=whole)
        self.files.append(File(made["path"], data, user, []))

    @precondition(lambda self: self.files)
    @rule(n=WHICH, d=WHICH, b=WHO)
    def send_file(self, n: int, d: int, b: int) -> None:
        """Send a file to a friend, if one may read it."""
        file, device, other = self.files[-1 - n % len(self.files)], self.device(d), self.user(b)
        status = self.may_whisper(device.user, other)
        if status == 1 and not self.may_fetch(device.user, file):
            status = 4005
        message: Frame = said("1", f"{self.step}", toId=other.id)
        message["info"].append({"category": "3", "content": file.path})
        row = self.post(device, message, status)
        if status == 1:
            self.spread(device, [device.user.id, other.id], message, row)
            file.sent.append(self.logs[row["chatId"]][-1])

    def may_fetch(self, user: User, file: File) -> bool:
        """Tell whether somebody may read a file: an owner, or who may read a message with it."""
        shown = [entry for entry in file.sent if not entry.recalled]
        return file.owner is user or any(
            entry in self.readable(user, entry.chat) for entry in shown
        )

    @precondition(lambda self: self.files)
    @rule(n=WHICH, a=WHO)
    def fetch(self, n: int, a: int) -> None:
        """Read a file, if one may."""
        file, user = self.files[-1 - n % len(self.files)], self.user(a)
        status = 1 if self.may_fetch(user, file) else 4005
        found = self.ask(user, "get_file", status, path=file.path)
        if status == 1:
            assert base64.b64decode(found["content"]) == file.content

    # --- devices and accounts ---------------------------------------------------------------

    @rule(a=WHO)
    def add_device(self, a: int) -> None:
        """Log in on one more device, for which nothing waits."""
        user = self.user(a)
        if len(user.devices) < MOST_DEVICES:
            user.devices.append(self.run(self.first(user)))

    @rule(d=WHICH)
    def sign_out(self, d: int) -> None:
        """End a device that is online, but not the last one; its connection is told."""
        device = self.device(d)
        user, wire = device.user, device.wire
        if wire is None or len(user.devices) == 1:
            return
        number = self.run(wire.ok("whoami"))["deviceId"]
        self.ask(user, "sign_out", 1, deviceId=number)
        user.devices.remove(device)
        self.run(self.gone(device, "signed_out"))

    async def gone(self, device: Device, name: str) -> None:
        """Require that a connection gets its last frame, and that its device is no more."""
        assert device.wire is not None
        found = await device.wire.rest()
        assert found[-1]["event"]["name"] == name, found[-1]
        again = await self.dial()
        reply = await again.exchange(frame("restart", device.push_id))
        assert reply["status"] == 11001, reply

    @rule(a=WHO)
    def logout(self, a: int) -> None:
        """Log out, after which nothing is granted, and in again."""
        user = self.user(a)
        self.ask(user, "logout", 1)
        self.ask(user, "friends", 11001)
        self.run(user.wire.login(user.phone))

    @rule(d=WHICH)
    def change_password(self, d: int) -> None:
        """Change the password, and back: all other logins of the account end."""
        device = self.device(d)
        user, wire = device.user, device.wire
        if wire is None:
            return
        others = [each for each in user.devices if each is not device]
        self.run(wire.ok("change_password", old=PASSWORD, new=OTHER_PASSWORD))
        user.devices[:] = [device]
        for each in others:
            if each.wire is not None:
                self.run(self.gone(each, "signed_out"))
        try:
            self.run(user.wire.command("friends"))
            raise AssertionError("a login outlived the password")
        except (Closed, ConnectionError):
            pass
        self.run(wire.ok("change_password", old=OTHER_PASSWORD, new=PASSWORD))

        async def enter() -> None:
            user.wire = await self.dial()
            await user.wire.login(user.phone)

        self.run(enter())

    @rule(a=WHO)
    def visit(self, a: int) -> None:
        """Somebody comes, makes a friend, writes, and is deleted; what they wrote stays."""
        user = self.user(a)

        async def work() -> tuple[str, Frame]:
            wire = await self.dial()
            await wire.register()
            await wire.ok("add_friend", userId=user.id)
            await user.wire.ok("accept_friend", userId=wire.user_id)
            [row] = await wire.post(said("1", f"{self.step}", toId=user.id))
            await wire.refused(10000, {"cmd": "delete_account", "password": OTHER_PASSWORD})
            await wire.ok("delete_account", password=PASSWORD)
            again = await self.dial()
            login = {"cmd": "login", "phone": wire.phone, "password": PASSWORD}
            await again.refused(6004, login)
            return wire.user_id, row

        text = f"text {self.step + 1}"
        visitor, row = self.run(work())
        chat = row["chatId"]
        event = {"name": "friend_request", "userId": visitor, "description": ""}
        self.note(chat, [user.id], sender=visitor, type="2", event=event)
        number = row["msgId"]
        self.note(chat, [user.id], sender=visitor, type="1", text=text, number=number)

    # --- comparing --------------------------------------------------------------------------

    async def compare_user(self, user: User) -> None:
        """Compare what else one person sees."""
        await super().compare_user(user)
        friends = await all_pages(user.wire, "friends")
        others = {each.id for each in self.people if self.are_friends(user, each)}
        assert set(ids(friends)) == others
        for each in friends:
            assert each["alias"] == self.aliases.get((user.id, each["id"]), "")
            assert each["username"] == self.names.get(each["id"], "")
            assert each["desc"] == self.descriptions.get(each["id"], "")
            assert each["isFriend"] is True
        asking = {asker for asker, to in self.requests if to == user.id}
        assert set(ids(await all_pages(user.wire, "friend_requests"))) == asking
        refused = {other for one, other in self.blocked if one == user.id}
        assert set(ids(await all_pages(user.wire, "blocked"))) == refused
        assert (await user.wire.ok("account"))["user"]["friends"] == len(others)
        assert len(await user.wire.ok("devices")) == len(user.devices)


def main() -> int:
    """Run many machines, print what was done, and leave it for the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", type=int, default=20)
    parser.add_argument("--steps", type=int, default=50, help="of each machine")
    parser.add_argument("--first", action="store_true", help="end at what is found, not shrunk")
    options = parser.parse_args()
    begin = time.monotonic()
    violations: list[str] = []
    wanted = settings(
        max_examples=options.machines,
        stateful_step_count=options.steps,
        deadline=None,
        print_blob=True,
        phases=(Phase.explicit, Phase.generate) if options.first else tuple(Phase),
        report_multiple_bugs=not options.first,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(Wide, settings=wanted)
    except Exception as problem:
        traceback.print_exc()
        violations.append(f"{type(problem).__name__}: {problem}"[:500])
    figures: dict[str, str | int | float] = {
        "machines": DONE["machines"],
        "exchanges with the server": DONE["steps"],
        "seconds": round(time.monotonic() - begin),
        "load": round(os.getloadavg()[0], 1),
    }
    for name, value in figures.items():
        print(f"{name:40}{value}")
    record("machines", figures, violations)
    return bool(violations)


if __name__ == "__main__":
    sys.exit(main())
