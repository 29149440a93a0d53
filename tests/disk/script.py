"""A fixed script of thirty commands, for servers that are killed or fail at one of their calls.

It goes on until the server does not answer any more. What was said is read off the trace
(`tests.disk.facts`); the script only knows which devices each text is for.
"""

import base64
from collections.abc import Awaitable, Callable
from typing import Any

from tests.conformance.wire import Closed, Dialer, Frame, Wire, text

PHONES = ("13800000001", "13800000002", "13800000003")
PICTURE = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20).decode()
PIECES = [base64.b64encode(bytes([number]) * 9000).decode() for number in range(3)]
# What ends a script: the server is gone, or does not answer within the patience of a `Wire`.
BROKEN = (Closed, ConnectionError, TimeoutError)


class Script:
    """Three people, a second device, a group and some files."""

    def __init__(self, dial: Dialer) -> None:
        self.expected: dict[str, tuple[str, ...]] = {}  # by text: the devices that it is for
        self.wires: dict[str, Wire] = {}
        self.gone = False  # the server is
        self.done = 0  # steps that were answered
        self.internal = 0  # answers with status 5000
        self.refused: list[Frame] = []  # other answers that are no success
        self._dial = dial
        self._group = ""
        self._upload: Frame = {}
        self._first = ""  # a msgId

    @property
    def steps(self) -> list[Callable[[], Awaitable[Any]]]:
        """The commands, in their order."""
        return [
            *(lambda name=name: self._register(name) for name in "abc"),
            *(lambda name=name: self._start(name) for name in "abc"),
            lambda: self._run("a", "add_friend", userId=self._id("b")),
            lambda: self._run("b", "accept_friend", userId=self._id("a")),
            lambda: self._run("a", "add_friend", userId=self._id("c")),
            lambda: self._run("c", "accept_friend", userId=self._id("a")),
            lambda: self._say("a", "b", "b", 1),
            lambda: self._say("a", "c", "c", 3),
            lambda: self._ack("b"),
            self._make_group,
            lambda: self._say("a", "", "bc", 1),
            lambda: self._say("b", "", "ac", 2),
            lambda: self._run("a", "set_alias", userId=self._id("b"), alias="Bee"),
            lambda: self._run("a", "complete_account", userId=self._id("a"), username="Ada"),
            self._save,
            self._part,
            self._part,
            lambda: self._part(done=True, name="x"),
            lambda: self._run("a", "recall", msgId=self._first),
            lambda: self._run("a", "update_group", groupId=self._group, notice="hello"),
            self._second,
            lambda: self._say("b", "a", "ad", 1),
            lambda: self._run("a", "block", userId=self._id("c")),
            lambda: self._run("a", "kick", groupId=self._group, userIds=[self._id("c")]),
            lambda: self._ack("a"),
            lambda: self._say("a", "b", "bd", 2),
        ]

    async def play(self) -> None:
        """Run one command after the other, until the server is gone or all are done."""
        for step in self.steps:
            try:
                await step()
            except BROKEN:
                self.gone = True
                return
            except (AssertionError, KeyError) as problem:
                # It failed, or needs what one before it did not get.
                self.internal += "an internal error" in str(problem)
                continue
            self.done += 1

    async def _connected(self, name: str) -> Wire:
        self.wires[name] = await self._dial()
        return self.wires[name]

    async def _register(self, name: str) -> None:
        await (await self._connected(name)).register(PHONES["abc".index(name)])

    async def _start(self, name: str) -> None:
        await self.wires[name].start()

    async def _second(self) -> None:
        """Log in with another device of the first person."""
        wire = await self._connected("d")
        await wire.login(PHONES[0])
        await wire.start()

    def _id(self, name: str) -> str:
        found = self.wires[name].user_id
        assert found, "it has no account"
        return found

    async def _run(self, who: str, cmd: str, /, **fields: Any) -> Any:
        reply = await self.wires[who].command(cmd, **fields)
        if reply["status"] != 1:
            self.refused.append(reply)
        assert reply["status"] == 1
        return reply["result"]

    async def _say(self, name: str, to: str, devices: str, count: int) -> None:
        """Send texts to a person, or to the group."""
        number = len(self.expected)
        words = [f"<p0 {number + each}> from {name}" for each in range(count)]
        whom = {"toId": self._id(to)} if to else {"chatId": self._group, "toId": "", "type": "7"}
        messages = [{**text("", each), **whom, "clientId": each} for each in words]
        self.expected |= {each: tuple(devices) for each in words}
        reply = await self.wires[name].send(messages)
        if reply["status"] != 1:
            self.refused.append(reply)
        elif not self._first:
            self._first = reply["result"][0]["msgId"]

    async def _ack(self, name: str) -> None:
        """Ack what came, and have that committed."""
        wire = self.wires[name]
        packets = [frame["message"] for frame in wire.pushed if isinstance(frame["message"], list)]
        if packets:
            await wire.ack(packets[-1][-1]["seq"])
        await wire.fence()

    async def _make_group(self) -> None:
        users = [self._id("b"), self._id("c")]
        group = await self._run("a", "create_group", name="g", kind="group", userIds=users)
        self._group = group["id"]

    async def _save(self) -> None:
        await self._run("a", "save_file", name="x.png", content=PICTURE)

    async def _part(self, **fields: Any) -> None:
        upload = self._upload or {"upload": "", "offset": 0}
        piece = PIECES[upload["offset"] // 9000]
        self._upload = await self._run("a", "save_part", **upload, content=piece, **fields)

    def close(self) -> None:
        """Close all connections."""
        for wire in self.wires.values():
            wire.close()
