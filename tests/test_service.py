"""What connections share: a turn of the loop writes so much to all of them together."""

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from pushd import config
from pushd.connection import Connection
from pushd.service import Service

TURN = 1024


class Loop:
    """A loop whose turns are asked for."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def call_soon(self, function: Callable[[], None]) -> None:
        """Note what the next turn does."""
        self.soon.append(function)

    def turn(self) -> None:
        """Do what is due."""
        due, self.soon = self.soon, []
        for function in due:
            function()


class Phone:
    """A connection that has so many bytes to write, a part with each flush."""

    def __init__(self, service: Service, name: str, sizes: list[int], told: list[str]) -> None:
        self.service, self.name, self.sizes, self.told = service, name, sizes, told

    def wake(self) -> None:
        """Ask to be flushed."""
        self.service.flush_soon(cast(Any, self))

    def flush(self) -> None:
        """Write the next of them."""
        self.told.append(self.name)
        self.service.stats.bytes_out += self.sizes.pop(0)
        if self.sizes:
            self.service.flush_later(cast(Any, self))


class Wire:
    """A transport to a client that takes all it is sent."""

    def __init__(self) -> None:
        self.answers = 0
        self.reading = True

    def get_extra_info(self, name: str) -> Any:
        """Tell the peer's name and nothing more."""
        return ("10.0.0.1", 5) if name == "peername" else None

    def set_write_buffer_limits(self, high: int) -> None:
        """Do nothing."""

    def write(self, data: bytes) -> None:
        """Count."""
        self.answers += data.count(b"\n")

    def pause_reading(self) -> None:
        """Take no more from the client."""
        self.reading = False

    def resume_reading(self) -> None:
        """Go on."""
        self.reading = True


def shared(loop: Loop, **limits: Any) -> Service:
    """Make a service with these limits."""
    clock = SimpleNamespace(now=time.monotonic)
    context = SimpleNamespace(config=config.Config(limits=config.Limits(**limits)), clock=clock)
    return Service(cast(Any, context), cast(Any, loop))


def turns(loop: Loop, told: list[str]) -> list[str]:
    """Go on until nothing is due; gives who was flushed in each turn."""
    found = []
    while loop.soon:
        assert len(loop.soon) == 1
        loop.turn()
        found.append("".join(told))
        told.clear()
    return found


def test_a_herd_is_written_to_in_many_turns() -> None:
    """Beyond `limits.turn` bytes the rest waits for the next turn, before who has had one."""
    loop, told = Loop(), cast(list[str], [])
    service = shared(loop, turn=TURN)
    for name, sizes in {"a": [600, 600], "b": [600, 1], "c": [10]}.items():
        Phone(service, name, sizes, told).wake()
    assert turns(loop, told) == ["ab", "cab"]


def test_a_short_answer_does_not_wait_behind_a_herd() -> None:
    """Who wakes while a herd is being written to is flushed in that turn, beside it."""
    loop, told = Loop(), cast(list[str], [])
    service = shared(loop, turn=TURN)
    for _ in range(20):
        Phone(service, "h", [TURN] * 3, told).wake()
    loop.turn()
    told.clear()
    Phone(service, "x", [40], told).wake()
    found = turns(loop, told)
    assert found[0] == "hx"
    assert found[1:] == ["h"] * 58


def test_who_waits_for_a_flush_handles_no_more_lines() -> None:
    """However long a herd takes, no connection gathers more replies than a packet and one line."""
    loop = Loop()
    service = shared(loop, turn=TURN, packet=4096)
    herd: list[tuple[Connection, Wire]] = []
    for _ in range(50):
        connection, wire = Connection(service), Wire()
        connection.connection_made(cast(Any, wire))
        herd.append((connection, wire))
    line = b'{"id":"%b"}\n' % (b"i" * 64)
    sent = 0
    for _ in range(100):
        for connection, wire in herd:
            if wire.reading:
                connection.data_received(line * 256)
                sent += 256
        loop.turn()
        assert all(sum(map(len, one._out)) < 4096 + 200 for one, _ in herd)
    while loop.soon:
        loop.turn()
    assert sum(wire.answers for _, wire in herd) == sent
