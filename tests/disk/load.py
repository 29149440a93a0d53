"""A few people at work: messages, acks, groups, files and changes of all kinds, by a seed.

`Company` sets them up on a server, lets them work, and at the end has each device take in all
that waits for it. What they saw is not noted here: the tools read it off the wire.
"""

import asyncio
import base64
import random
from collections.abc import Awaitable, Callable
from typing import Any

from tests.conformance.wire import Closed, Dialer, Frame, Wire

# Accounts; the first two have a second device. All are friends and members of one group.
PEOPLE = 5
DEVICES = 2
FIRST_PHONE = 13_800_000_000
BROKEN = (Closed, ConnectionError)


class Person:
    """One device and what it does."""

    def __init__(self, wire: Wire, rng: random.Random, name: str) -> None:
        self.wire = wire
        self.name = name
        self.friends: list[str] = []
        self.group = ""
        self._random = rng
        self._count = 0
        self._sent: list[str] = []  # msgIds

    async def work(self, steps: int) -> None:
        """Do a number of things, one after the other, until the connection breaks."""
        actions: list[Callable[[], Awaitable[Any]]] = (
            [self.send] * 8
            + [self.send_group] * 4
            + [self.ack] * 5
            + [self.save] * 2
            + [self.upload, self.rename, self.alias, self.recall, self.notice, self.fence]
        )
        try:
            for _ in range(steps):
                await self._random.choice(actions)()
        except BROKEN:
            return

    def words(self) -> str:
        """Give a text that is nowhere else, of any length."""
        self._count += 1
        filler = "x" * self._random.choice((0, 10, 100, 700, 3000))
        return f"<{self.name} {self._count}>{filler}"

    async def send(self) -> None:
        """Send some messages to a friend."""
        to = self._random.choice(self.friends)
        await self._post(toId=to, type="1", count=self._random.randint(1, 5))

    async def send_group(self) -> None:
        """Send a message to the group."""
        await self._post(chatId=self.group, type="7", count=1)

    async def _post(self, count: int, **fields: str) -> None:
        messages: list[Frame] = [
            {
                **fields,
                "info": [{"category": "0", "content": self.words()}],
                "clientId": f"{self.name}-{self._count}",
            }
            for _ in range(count)
        ]
        reply = await self.wire.send(messages)
        if reply["status"] == 1:
            self._sent += [row["msgId"] for row in reply["result"]]

    async def ack(self) -> None:
        """Ack what has come so far, or a part of it."""
        packets = [frame for frame in self.wire.pushed if isinstance(frame["message"], list)]
        if packets:
            await self.wire.ack(self._random.choice(packets)["message"][-1]["seq"])

    async def save(self) -> None:
        """Save a file."""
        await self.wire.command("save_file", name="x", content=self._content())

    async def upload(self) -> None:
        """Save a file in two or three parts."""
        reply = await self.wire.command("save_part", upload="", offset=0, content=self._content())
        if reply["status"] == 1 and self._random.random() < 0.5:
            reply = await self._part(reply["result"])
        if reply["status"] == 1 and self._random.random() < 0.7:
            await self._part(reply["result"], done=True, name="x")

    async def _part(self, upload: Frame, **fields: Any) -> Frame:
        return await self.wire.command("save_part", **upload, content=self._content(), **fields)

    def _content(self) -> str:
        size = self._random.choice((20, 600, 5000, 40_000))
        return base64.b64encode(self._random.randbytes(size)).decode()

    async def rename(self) -> None:
        """Change the own name."""
        self._count += 1
        await self.wire.command(
            "complete_account", username=f"{self.name} {self._count}", userId=self.wire.user_id
        )

    async def alias(self) -> None:
        """Give a friend a name."""
        self._count += 1
        friend = self._random.choice(self.friends)
        await self.wire.command("set_alias", userId=friend, alias=f"{self.name} {self._count}")

    async def recall(self) -> None:
        """Take back a message."""
        if self._sent:
            await self.wire.command("recall", msgId=self._sent.pop())

    async def notice(self) -> None:
        """Change the group, for which not everybody has the right."""
        self._count += 1
        await self.wire.command(
            "update_group", groupId=self.group, notice=f"{self.name} {self._count}"
        )

    async def fence(self) -> None:
        """Have acks committed."""
        await self.wire.fence()

    async def take_in(self, queued: int) -> None:
        """Take in and ack what waits."""
        while queued > 0:
            messages = (await self.wire.packet())["message"]
            queued -= len(messages)
            await self.wire.ack(messages[-1]["seq"])
        await self.wire.fence()


class Company:
    """All the people."""

    def __init__(self, dial: Dialer, seed: int) -> None:
        self.people: list[Person] = []
        self._dial = dial
        self._random = random.Random(seed)

    async def set_up(self) -> None:
        """Make accounts, friends, devices and the group."""
        wires = []
        for number in range(PEOPLE):
            wire = await self._dial()
            await wire.register(str(FIRST_PHONE + number))
            wires.append(wire)
        for wire in wires:
            await self._start(wire)
        for number, one in enumerate(wires):
            for other in wires[:number]:
                await one.ok("add_friend", userId=other.user_id)
                await other.ok("accept_friend", userId=one.user_id)
        for number in range(DEVICES):
            wire = await self._dial()
            await wire.login(str(FIRST_PHONE + number))
            await self._start(wire)
        users = [wire.user_id for wire in wires]
        group = await wires[0].ok("create_group", name="all", kind="group", userIds=users[1:])
        for person in self.people:
            person.friends = [user for user in users if user != person.wire.user_id]
            person.group = group["id"]

    async def _start(self, wire: Wire) -> None:
        name = f"p{len(self.people)}"
        await wire.start()
        rng = random.Random(self._random.random())
        self.people.append(Person(wire, rng, name))

    async def work(self, steps: int) -> None:
        """Let all work at the same time."""
        await asyncio.gather(*(person.work(steps) for person in self.people))

    async def resume(self) -> None:
        """Take all devices up again, on connections of their own."""
        for person in self.people:
            person.wire.close()
            person.wire, _ = await self._dial.resume(person.wire.push_id)

    async def take_in(self) -> None:
        """Have each device take in all that waits for it."""
        for person in self.people:
            wire, reply = await self._dial.resume(person.wire.push_id)
            person.wire.close()
            person.wire = wire
            await person.take_in(reply["queued"])
