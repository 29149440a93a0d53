"""What the simulation has found in the server, each kept as a run of its own."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pushd.errors import Refusal
from pushd.status import Status
from pushd.store.messages import Messages
from tests.model.checker import check
from tests.model.entries import Delivered
from tests.sim import steps
from tests.sim.phone import Phone
from tests.sim.points import install
from tests.sim.world import World, live_in

pytestmark = pytest.mark.slow

Script = Callable[[World], Coroutine[Any, Any, None]]


def play(folder: Path, script: Script, queue: int = 10_000) -> World:
    """Play a script in a world where nothing happens by itself."""
    install()
    world = World(1, folder)
    world.points.on = dict.fromkeys(world.points.on, False)
    settings = {"queue": msgspec.structs.replace(world.config.queue, messages=queue)}
    world.config = msgspec.structs.replace(world.config, **settings)
    live_in(world, script(world))
    return world


async def pair(world: World) -> tuple[Phone, Phone]:
    """Start, and give the phones of two friends."""
    world.start()
    await steps.set_up(world)
    user = next(user for user in world.users.values() if user.friends)
    return user.phones[0], world.users[min(user.friends)].phones[0]


def test_acks_that_do_not_fit_are_not_said_to_be_committed(tmp_path: Path) -> None:
    """On a disk without any room no command is answered as if the acks before it were safe."""

    async def script(world: World) -> None:
        one, other = await pair(world)
        other.eager = False
        last = other.last
        one.send([one.fresh(other.user.name)])
        assert await world.until(lambda: other.last > last, 10.0)
        world.disk.fill()
        world.disk.room = 0
        one.send([one.fresh(other.user.name)])
        await world.until(lambda: one.quiet)
        other.ack_packet()
        other.command("ping")
        await world.until(lambda: other.quiet, 10.0)
        world.kill()
        await steps.settle(world)

    world = play(tmp_path, script)
    assert world.alarms == []
    assert check(world.log).violations == []


def test_a_queue_that_cannot_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk a gap may not be sealed: the device is told so, and gets all of it later."""

    async def refuse(self: Messages, device: int, upto: int) -> None:
        raise Refusal(Status.DISK_FULL)

    async def script(world: World) -> None:
        one, other = await pair(world)
        other.drop("close")
        for _ in range(5):
            one.send([one.fresh(other.user.name)])
        await world.until(lambda: one.quiet)
        with monkeypatch.context() as patch:
            patch.setattr(Messages, "seal", refuse)
            other.connect()
            await world.until(lambda: other.on)
            assert await world.until(lambda: other.link is None, 10.0)
        other.connect()
        assert await world.until(lambda: other.drained, 10.0)

    world = play(tmp_path, script, queue=2)
    assert world.alarms == []
    assert [entry for entry in world.log if isinstance(entry, Delivered) and entry.event]
