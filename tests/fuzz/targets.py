"""What is fuzzed: functions from bytes that raise when the server did what it must not.

    lines   the splitter, the decoder and what checks messages, in one call: fast
    core    the whole server but its sockets (`core.World`), on a store in memory

An input that is refused, however, is fine; anything raised but the declared errors is not.
"""

import contextlib
import gc
import json
from collections.abc import Callable
from typing import Any

from msgspec import UNSET

from pushd import config, handlers, protocol
from pushd.draft import drafts
from pushd.errors import LineTooLong, Malformed, Refusal
from pushd.protocol import Splitter
from pushd.status import Status

from .core import PASSWORD, PHONES, Broken, World, judged
from .seeds import WHO

LIMITS = config.Limits()
TABLE = handlers.table()
# Bytes of a line: few, so that there are lines beyond it.
LIMIT = 700
USER = 10001
# Connections that one world sees, before it is made anew.
LIVES = 2000
COUNTED = 20  # worlds from one count of what they leave to the next, for that takes long
# Objects that worlds which are gone may leave, for caches that fill.
LEFT = 20_000


def lines(data: bytes) -> None:
    """Split and decode, whole and in pieces; raises Broken or what was not declared."""
    pace, data = data[0] if data else 1, data[1:]
    whole = taken([data])
    step = 1 + pace % 16 + len(data) // 64
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    if taken(pieces) != whole:
        raise Broken(f"pieces of {step} bytes give other lines")
    for line in whole:
        if line is not None and line.strip():
            decode(line)


def taken(pieces: list[bytes]) -> list[bytes | None]:
    """Give all lines, and None for one that is too long, with which it ends."""
    splitter, found = Splitter(), list[bytes | None]()
    try:
        for piece in pieces:
            splitter.feed(piece)
            while (line := splitter.next_line(LIMIT)) is not None:
                found.append(line)
        if (line := splitter.rest(LIMIT)) is not None:
            found.append(line)
    except LineTooLong:
        found.append(None)
    return found


def decode(line: bytes) -> None:
    """Decode a line as the server does, up to where a store is needed."""
    try:
        frame = protocol.decode_frame(line, LIMITS.messages_per_frame)
        agree(line, good=True)
        if frame.cmd is not UNSET:
            row = TABLE.get(str(frame.cmd))
            if row is not None:
                protocol.decode_request(line, row.request)
        elif isinstance(frame.message, list):
            drafts(frame.message, USER, LIMITS)
    except Malformed:
        agree(line, good=False)
    except Refusal as problem:
        agree(line, good=True)
        judged(protocol.error("", problem, problem.frame_id))


def decode_only(line: bytes) -> None:
    """Decode a line and nothing else; what is refused is fine."""
    with contextlib.suppress(Refusal):
        protocol.decode_frame(line, LIMITS.messages_per_frame)


def agree(line: bytes, *, good: bool) -> None:
    """Require that another reader of JSON sees one object where the decoder sees one."""
    try:
        # Numbers of any length, as JSON has them: Python bounds the digits of an int.
        value: Any = _other_reader.decode(line.decode())
        if b"\\u" in line:
            json.dumps(value, ensure_ascii=False).encode()  # refuses half a character
        sound = isinstance(value, dict) and b"\\ud" not in line.lower()
    except RecursionError:
        return
    except ValueError:
        value, sound = None, False
    if good and not isinstance(value, dict):
        raise Broken("taken, and no JSON object")
    if not good and sound:
        raise Broken("a JSON object, and refused as none")


def _no_number(name: str) -> object:
    raise ValueError(name)


_other_reader = json.JSONDecoder(parse_int=str, parse_constant=_no_number)


class Core:
    """The target `core`: worlds, one after the other."""

    def __init__(self) -> None:
        self.world: World | None = None
        self.lives = 0
        self.worlds = 0
        self.objects = 0  # that there were when the first world had gone

    def __call__(self, data: bytes) -> None:
        """Run an input as one connection, in a new world when its person is no more."""
        if self.lives == LIVES:
            self.end()
        who = WHO.get(data[:1], "nobody")
        if not self.run(who, data[1:]):
            self.end()
            self.run(who, data[1:])

    def run(self, who: str, data: bytes) -> bool:
        """Run an input as this person; False when they cannot log in or take their device up."""
        world = self.world or self.begin()
        self.lives += 1
        first = before(world, who)
        replies = world.exchange([first, data] if first else [data], operator=who == "an operator")
        if self.lives % 200 == 0:
            world.audit()
        return not first or replies[0]["status"] == Status.SUCCESS

    def begin(self) -> World:
        """Make a world."""
        self.world, self.lives = World().__enter__(), 0
        return self.world

    def end(self) -> None:
        """End a world; raises Broken if it left something."""
        if self.world is None:
            return
        world, self.world = self.world, None
        world.audit()
        world.__exit__(None, None, None)
        del world
        self.worlds += 1
        if self.worlds % COUNTED != 1:
            return
        gc.collect()
        count = len(gc.get_objects())
        if self.worlds == 1:
            self.objects = count
        elif count > self.objects + LEFT:
            raise Broken(f"{count} objects after {self.worlds} worlds, {self.objects} after one")


def before(world: World, who: str) -> bytes:
    """Give what brings a connection into the state that an input is for."""
    if who == "a user":
        frame = {"cmd": "login", "phone": PHONES[0], "password": PASSWORD}
    elif who == "a device":
        frame = {"message": "restart", "pushId": world.known["pushId"]}
    else:
        return b""
    return json.dumps(frame).encode() + b"\n"


TARGETS: dict[str, Callable[[bytes], None]] = {"lines": lines, "core": Core()}
