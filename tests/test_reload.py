"""A reload: as if the server had been started so, and without holding it up."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pushd import config, log
from pushd.config import SETTINGS, Config, value_of
from pushd.errors import ConfigError
from pushd.server import Server
from pushd.settings import Setting
from tests.conformance.wire import Wire, text

# What is of a run and not of its settings.
VOLATILE = {"_numbers", "now", "date", "next_id", "batches", "waiting", "_opened"}
VOLATILE |= {"_tail", "_wide_turn", "_written", "_due", "turned", "began", "_worst", "_worst_since"}


@asynccontextmanager
async def running(
    settings: Config, load: Callable[[], Config] | None = None
) -> AsyncIterator[Server]:
    """Run a server in this process."""
    listening: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
    server = Server(settings, load=load)
    task = asyncio.create_task(server.run(ready=listening.set_result, signals=False))
    await asyncio.wait([task, listening], return_when=asyncio.FIRST_COMPLETED)
    listening.result()
    try:
        yield server
    finally:
        server.stop()
        assert await task == 0


async def dial(server: Server) -> Wire:
    """Open a connection."""
    host, _, port = server.addresses[0].rpartition(":")
    return await Wire.connect((host, int(port)))


def base(folder: Path) -> Config:
    """Settings of a small server of its own."""
    return Config(
        server=config.Server(listen=("127.0.0.1:0",), data=str(folder), loop="asyncio"),
        auth=config.Auth(bcrypt_cost=4),
        store=config.Store(reserve=0, readers=1),
    )


def another(setting: Setting, old: Any) -> Any:
    """A value of a setting that is not the old one."""
    if setting.choices:
        return next(choice for choice in setting.choices if choice != old)
    if setting.kind is bool:
        return not old
    if setting.kind is tuple:
        return (*old, "another")
    if setting.kind is str:
        return f"{old} and more"
    return old + 1 if old + 1 <= (setting.high or 0) else old - 1


def changed(settings: Config, keys: list[str]) -> Config:
    """The same settings, but for these, each of which has another value."""
    for key in keys:
        section, _, name = key.partition(".")
        value = another(SETTINGS[key], value_of(settings, key))
        part = msgspec.structs.replace(getattr(settings, section), **{name: value})
        settings = msgspec.structs.replace(settings, **{section: part})
    return settings


def copies(server: Server) -> dict[str, Any]:
    """Everything simple that the parts of a server hold, by part and attribute."""
    service, store = server.service, server.service.ctx.store
    ctx = service.ctx
    parts: dict[str, Any] = {
        "server": server,
        "service": service,
        "ctx": ctx,
        "hub": ctx.hub,
        "hasher": ctx.hasher,
        "media": ctx.media,
        "penalties": ctx.penalties,
        "messages": service._messages,
        "store": store,
        "journal": store.writer.journal,
        "lines": store.writer.lines,
        "health": server.health,
        **{name: getattr(store, name) for name in ("writer", "accounts", "devices", "friends")},
        **{name: getattr(store, name) for name in ("groups", "lifecycle", "files", "audit")},
        "history": store.messages,
        **{f"budget {name}": budget for name, budget in ctx.budgets.items()},
    }
    found = {}
    for part, holder in parts.items():
        names = {*getattr(holder, "__dict__", ()), *getattr(holder, "__slots__", ())}
        names |= {name for name in vars(type(holder)) if name.startswith(("most_", "settings"))}
        for name in names - VOLATILE:
            value = getattr(holder, name)
            if isinstance(value, bool | int | float | str | msgspec.Struct):
                found[f"{part}.{name}"] = value
    return found


def live() -> list[str]:
    """The settings that a reload changes, without the names of files that must be there."""
    files = ("tls.certificate", "tls.key")
    return [key for key, each in SETTINGS.items() if not each.restart and key not in files]


@pytest.mark.slow
async def test_a_reloaded_server_is_like_one_that_was_started_so(tmp_path: Path) -> None:
    """After a reload no part holds an old value of a live setting: all are as after a start."""
    before = base(tmp_path / "a")
    after = changed(before, live())
    async with running(before, lambda: after) as server:
        untouched = copies(server)
        result = await server.reload()
        reloaded = copies(server)
    assert result == {"changed": live(), "restart": []}
    async with running(after) as server:
        fresh = copies(server)
    del fresh["server._start"], reloaded["server._start"]
    assert reloaded == fresh
    assert len([name for name in reloaded if reloaded[name] != untouched[name]]) > 25


async def test_a_setting_that_needs_a_restart_stays_and_is_named(tmp_path: Path) -> None:
    """Its name is told again with each reload until the restart, and the rest is taken over."""
    before = base(tmp_path)
    after = changed(before, ["server.backlog", "store.readers", "limits.page"])
    async with running(before, lambda: after) as server:
        waiting = ["server.backlog", "store.readers"]
        assert await server.reload() == {"changed": ["limits.page"], "restart": waiting}
        assert await server.reload() == {"changed": [], "restart": waiting}
        assert server.config.server.backlog == before.server.backlog
        assert server.config.limits.page == after.limits.page


async def test_a_bad_file_changes_nothing(tmp_path: Path) -> None:
    """The errors are given line by line, and the next good file is taken."""
    before = base(tmp_path)
    answers: list[Any] = [ConfigError(["a: b", "c: d"]), changed(before, ["limits.page"])]

    def load() -> Config:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with running(before, load) as server:
        assert await server.reload() == {"errors": ["a: b", "c: d"]}
        assert server.config == before
        assert await server.reload() == {"changed": ["limits.page"], "restart": []}


async def test_what_cannot_be_prepared_keeps_all_as_it_was(tmp_path: Path) -> None:
    """A part with files of its own, such as a certificate, refuses before anything is replaced."""
    before = base(tmp_path)
    after = changed(before, ["limits.page"])
    used: list[int] = []

    def bad(fresh: Config) -> Callable[[], None]:
        raise ConfigError(["the key is not that of the certificate"])

    async with running(before, lambda: after) as server:
        assert server._reloader is not None
        server._reloader.prepare = [lambda fresh: lambda: used.append(fresh.limits.page), bad]
        assert await server.reload() == {"errors": ["the key is not that of the certificate"]}
        assert (server.config, used) == (before, [])
        server._reloader.prepare.pop()
        assert (await server.reload())["changed"] == ["limits.page"]
        assert used == [after.limits.page]


async def test_a_slow_disk_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    """While a file is being read clients are served; a second reload waits for the first."""
    before = base(tmp_path)
    began, go_on, reads = threading.Event(), threading.Event(), []

    def load() -> Config:
        reads.append(1)
        began.set()
        assert go_on.wait(30)
        return before

    async with running(before, load) as server:
        wire = await dial(server)
        reloads = [asyncio.create_task(server.reload()) for _ in range(2)]
        assert await asyncio.to_thread(began.wait, 30)
        for _ in range(3):
            await wire.fence()
        assert not any(task.done() for task in reloads)
        assert len(reads) == 1
        go_on.set()
        assert await asyncio.gather(*reloads) == [{"changed": [], "restart": []}] * 2
        wire.close()


async def test_a_server_that_stops_is_not_reloaded(tmp_path: Path) -> None:
    """Before the start and during the shutdown there is nothing to change."""
    refused = {"errors": ["the server is starting or stopping"]}
    before = base(tmp_path)
    assert await Server(before).reload() == refused
    async with running(before, lambda: pytest.fail("read")) as server:
        server.stop()
        assert await server.reload() == refused


@pytest.mark.slow
async def test_a_window_follows(tmp_path: Path) -> None:
    """A larger window is filled at once, a smaller one once it has room again."""
    before = msgspec.structs.replace(base(tmp_path), limits=config.Limits(window_messages=2))
    after = before

    async with running(before, lambda: after) as server:
        a, b = await dial(server), await dial(server)
        for wire in (a, b):
            await wire.register()
        await a.ok("add_friend", userId=b.user_id)
        await b.ok("accept_friend", userId=a.user_id)
        await b.drain((await b.start())["queued"])
        for number in range(12):
            await a.say(b.user_id, str(number))
        held = await b.expect_delivery(2)
        await b.expect_nothing()

        limits = msgspec.structs.replace(before.limits, window_messages=8)
        after = msgspec.structs.replace(before, limits=limits)
        await server.reload()
        held += await b.expect_delivery(6)
        await b.expect_nothing()

        limits = msgspec.structs.replace(before.limits, window_messages=3)
        after = msgspec.structs.replace(before, limits=limits)
        await server.reload()
        await b.ack(held[4]["seq"])
        await b.expect_nothing()  # three are still in flight
        await b.ack(held[7]["seq"])
        await b.expect_delivery(3, ack=True)
        await b.expect_delivery(1, ack=True)
        await b.expect_nothing()
        a.close()
        b.close()


@pytest.mark.slow
async def test_deadlines_of_connections_follow(tmp_path: Path) -> None:
    """A connection that was let wait for an hour is not, once the setting says a second."""
    before = msgspec.structs.replace(
        base(tmp_path), limits=config.Limits(login_idle=3600, login_total=3600)
    )
    limits = msgspec.structs.replace(before.limits, login_idle=1)
    async with running(before, lambda: msgspec.structs.replace(before, limits=limits)) as server:
        wire = await dial(server)
        await wire.fence()
        await server.reload()
        assert await wire.rest(5.0) == []
        wire.close()


async def test_budgets_and_lists_follow(tmp_path: Path) -> None:
    """What is open is bound by the new limits from the next frame on."""
    before = base(tmp_path)
    limits = msgspec.structs.replace(before.limits, text=3, phone_searches=1, groups=1)
    async with running(before, lambda: msgspec.structs.replace(before, limits=limits)) as server:
        wire = await dial(server)
        await wire.register()
        await wire.ok("create_group", name="one", kind="group")
        await server.reload()
        reply = await wire.command("create_group", name="two", kind="group")
        assert reply["status"] == 4290
        await wire.refused(4003, {"message": [text(wire.user_id, "long")]})
        wire.close()


@pytest.fixture(autouse=True)
def no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the log of these servers, which the tests of the log look at, out of the output."""
    monkeypatch.setattr(log, "_now_in_use", {})
