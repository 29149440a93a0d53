"""What the simulation has found in the server, each kept as a run of its own."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
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
from tests.sim.disk import SimWorker
from tests.sim.phone import Phone
from tests.sim.points import install
from tests.sim.world import World, live_in

pytestmark = pytest.mark.slow

Script = Callable[[World], Coroutine[Any, Any, None]]


def play(folder: Path, script: Script, queue: int = 10_000, window: int = 256) -> World:
    """Play a script in a world where nothing happens by itself."""
    install()
    world = World(1, folder)
    world.points.on = dict.fromkeys(world.points.on, False)
    settings: dict[str, Any] = {
        "queue": msgspec.structs.replace(world.config.queue, messages=queue),
        "limits": msgspec.structs.replace(world.config.limits, window_messages=window),
    }
    world.config = msgspec.structs.replace(world.config, **settings)
    live_in(world, script(world))
    return world


@dataclass
class Late:
    """How long the loop waits to hear of a commit."""

    seconds: float = 0.0


def slow_commits(monkeypatch: pytest.MonkeyPatch) -> Late:
    """Let the loop hear late of what is committed."""
    late = Late()
    real = SimWorker.run

    async def run(self: SimWorker, function: Any, *args: Any, **kw: Any) -> Any:
        result = await real(self, function, *args, **kw)
        if getattr(function, "__name__", "") == "_in_thread":
            await asyncio.sleep(late.seconds)
        return result

    monkeypatch.setattr(SimWorker, "run", run)
    return late


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


def test_a_queue_that_is_read_while_its_device_ends_is_no_hole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page may be read when the end of the device is committed and the loop has not heard of it.

    The queue is empty then, and that is no fault: the device is told that it was signed out.
    """
    late = slow_commits(monkeypatch)

    async def script(world: World) -> None:
        one, other = await pair(world)
        user = other.user
        steps._add_phone(world, user)
        assert await world.until(lambda: all(phone.quiet for phone in user.phones))
        second = user.phones[1]
        other.eager = False
        for _ in range(3):
            one.send([one.fresh(user.name)])
        assert await world.until(lambda: one.quiet and len(other._order) == 1)
        devices: list[Any] = []
        second.command("devices", then=lambda reply: devices.extend(reply["result"]))
        assert await world.until(lambda: second.quiet)
        [target] = [each["deviceId"] for each in devices if each["name"] == other.name]
        late.seconds = 5.0
        world.dying.add(other.name)
        second.command("sign_out", about=other.name, deviceId=target)
        await world.pass_time(1.0)
        # There is room for a page now, and nothing to put into it.
        other.ack_packet()
        await world.pass_time(1.0)
        assert other.on
        late.seconds = 0.0
        await world.pass_time(6.0)
        assert other.gone

    world = play(tmp_path, script, window=1)
    assert world.alarms == []


def test_a_logout_ends_the_connection_that_took_the_device_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A logout that waits for the disk may be committed when its device is up elsewhere.

    The new connection hears that the device is dead; it must not be left with a dead queue.
    """
    late = slow_commits(monkeypatch)

    async def script(world: World) -> None:
        one, other = await pair(world)
        other.eager = False
        one.send([one.fresh(other.user.name)])
        assert await world.until(lambda: bool(other._order))
        late.seconds = 1.0
        # The acks before it are committed first, and with them time goes by.
        other.ack_packet()
        await world.pass_time(0.1)
        world.dying.add(other.name)
        other.logout()
        await world.pass_time(0.5)
        other.drop("vanish")
        other.connect()
        assert await world.until(lambda: other.gone, 10.0)
        late.seconds = 0.0
        one.send([one.fresh(other.user.name)])
        await steps.settle(world)

    world = play(tmp_path, script)
    assert world.alarms == []
    assert check(world.log).violations == []


@pytest.mark.parametrize("size", [0, 5000])
def test_what_is_behind_a_logout_has_no_login(tmp_path: Path, size: int) -> None:
    """A list that is pipelined there gets 11001, or 4001 if it is too long for a stranger."""

    async def script(world: World) -> None:
        one, other = await pair(world)
        one.send([one.fresh(other.user.name, size)])
        world.dying.add(one.name)
        one.logout()
        one.send([one.fresh(other.user.name, size)])
        assert await world.until(lambda: one.gone, 10.0)
        await steps.settle(world)

    world = play(tmp_path, script)
    assert world.alarms == []
    assert check(world.log).violations == []
