"""What connections share: a turn of the loop writes so much to all of them together."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from pushd import config
from pushd.service import Service


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
    """A connection that has so many bytes to write, and more of them after that."""

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
            self.wake()


def test_a_herd_is_written_to_in_many_turns() -> None:
    """Beyond `limits.turn` bytes the rest waits for the next turn, before who has had one."""
    settings = config.Config(limits=config.Limits(turn=1024))
    loop, told = Loop(), cast(list[str], [])
    service = Service(cast(Any, SimpleNamespace(config=settings)), cast(Any, loop))
    turns = []
    for name, sizes in {"a": [600, 600], "b": [600, 1], "c": [10]}.items():
        Phone(service, name, sizes, told).wake()
    while loop.soon:
        assert len(loop.soon) == 1
        loop.turn()
        turns.append("".join(told))
        told.clear()
    assert turns == ["ab", "cab"]
