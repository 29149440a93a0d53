"""What is removed when: a clock that a test moves, and steps that delay nobody.

`upkeep.forget` is what a running server does once an hour; the tests call the same.
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from pushd import upkeep
from pushd.config import Config, Limits, Queue, Server, load
from pushd.config import Store as StoreConfig
from pushd.errors import ConfigError, StoreRefused
from pushd.store import FILE, retention
from pushd.store.check import open_stopped
from pushd.store.copy import compact
from tests.test_files_store import DAY, HOUR, PNG, Bench, to

HISTORY = 10  # days


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    await made.open()
    yield made
    await made.close()


async def forget(bench: Bench, days: int = HISTORY, queue: int = 30, client_ids: int = 7) -> None:
    """Do what a server with such settings does once an hour."""
    config = Config(
        server=Server(data=str(bench.folder)),
        queue=Queue(days=queue),
        store=StoreConfig(history_days=days),
        limits=Limits(client_id_days=client_ids),
    )
    await upkeep.forget(replace(bench.ctx, config=config, store=bench.store))


def messages(bench: Bench) -> set[int]:
    """The pictures that are in the history."""
    return {row[0] for row in bench.sql("SELECT id FROM message WHERE body LIKE '%media/%'")}


def assert_whole(bench: Bench) -> None:
    """All rules of the store hold; call it when the bench is closed."""
    with open_stopped(bench.folder) as checker:
        while (found := checker.step()) is not None:
            assert found == []


async def test_history_goes_when_it_is_too_old(bench: Bench) -> None:
    """Older messages go, younger ones stay, and no msgId is given a second time."""
    one, other = await bench.friends()
    path = await bench.save(one, PNG)
    old = await bench.post(one, path, **to(other))
    bench.clock.ms += HISTORY * DAY - 1
    young = await bench.post(one, path, **to(other))
    await forget(bench)
    assert messages(bench) == {old, young}
    bench.clock.ms += 2
    await forget(bench)
    assert messages(bench) == {young}
    bench.clock.ms += 20 * DAY
    await forget(bench)
    assert messages(bench) == set()
    await bench.reopen()
    assert await bench.post(one, path, **to(other)) > young
    await bench.close()
    assert_whole(bench)
    await bench.open()


async def test_history_is_kept_for_ever_by_default(bench: Bench) -> None:
    """0 days removes nothing."""
    one, other = await bench.friends()
    sent = await bench.post(one, await bench.save(one, PNG), **to(other))
    bench.clock.ms += 9000 * DAY
    await forget(bench, days=0)
    assert messages(bench) == {sent}


@pytest.mark.parametrize("rows", [1, 2, retention.ROWS])
async def test_what_waits_becomes_a_gap_before_it_goes(
    bench: Bench, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue that is kept longer than the history names no message that is gone.

    In however many steps, there is one gap in the end.
    """
    monkeypatch.setattr(retention, "ROWS", rows)
    one, other = await bench.friends()
    for number in range(3):
        await bench.post(one, await bench.save(one, PNG + b"%d" % number), **to(other))
    bench.clock.ms += (HISTORY + 1) * DAY
    young = await bench.post(one, await bench.save(one, PNG), **to(other))
    await forget(bench, queue=365)
    assert messages(bench) == {young}
    rows = bench.sql(
        "SELECT q.seq, g.seq_from FROM queue q JOIN device d ON d.id = q.device LEFT JOIN gap g"
        f" ON g.device = q.device AND g.seq = q.seq WHERE d.account = {other.account} ORDER BY 1"
    )
    assert len(rows) == 2
    assert rows[0][1] == 1
    assert rows[1] == (rows[0][0] + 1, None)
    await bench.close()
    assert_whole(bench)
    await bench.open()


async def test_a_file_goes_with_the_last_message_that_names_it(bench: Bench) -> None:
    """Its reference goes with the message, and the sweep removes its bytes."""
    one, other = await bench.friends()
    path = await bench.save(one, PNG)
    await bench.post(one, path, **to(other))
    bench.clock.ms += (HISTORY + 1) * DAY
    await bench.sweep()
    assert path in bench.on_disk()
    await forget(bench)
    assert bench.sql("SELECT * FROM file_ref") == []
    await bench.sweep()
    assert path not in bench.on_disk()


async def test_a_file_that_a_younger_message_names_stays(bench: Bench) -> None:
    """Only the stale reference goes."""
    one, other = await bench.friends()
    path = await bench.save(one, PNG)
    await bench.post(one, path, **to(other))
    bench.clock.ms += (HISTORY + 1) * DAY
    young = await bench.post(one, path, **to(other))
    await forget(bench)
    await bench.sweep()
    assert [row[2] for row in bench.sql("SELECT * FROM file_ref")] == [young]
    assert path in bench.on_disk()


async def test_messages_with_an_end_go_after_it(bench: Bench) -> None:
    """Also where history is kept for ever, once no queue and no repeat needs them."""
    one, other = await bench.friends()
    path = await bench.save(one, PNG)
    await bench.post(one, path, **to(other), expire=60)
    kept = await bench.post(one, path, **to(other))
    bench.clock.ms += 30 * DAY
    await forget(bench, days=0)
    assert len(messages(bench)) == 2
    bench.clock.ms += 2 * HOUR
    await forget(bench, days=0)
    assert messages(bench) == {kept}
    await bench.close()
    assert_whole(bench)
    await bench.open()


async def test_the_steps_are_small(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """No commit removes more than a step; other commits come between them."""
    monkeypatch.setattr(retention, "MESSAGES", 2)
    monkeypatch.setattr(retention, "DEVICES", 1)
    monkeypatch.setattr(retention, "REFERENCES", 1)
    one, other = await bench.friends()
    for number in range(5):
        await bench.post(one, await bench.save(one, PNG + b"%d" % number), **to(other))
    bench.clock.ms += (HISTORY + 1) * DAY
    before = bench.store.writer.batches
    await forget(bench)
    assert messages(bench) == set()
    assert bench.sql("SELECT * FROM file_ref") == []
    assert bench.store.writer.batches - before >= 6


async def test_a_clock_that_was_set_back_removes_nothing_early(bench: Bench) -> None:
    """A young message between old ids stays."""
    one, other = await bench.friends()
    path = await bench.save(one, PNG)
    bench.clock.ms += 40 * DAY
    ahead = await bench.post(one, path, **to(other))
    bench.clock.ms -= 40 * DAY
    await bench.post(one, path, **to(other))
    bench.clock.ms += (HISTORY + 1) * DAY
    await forget(bench)
    assert ahead in messages(bench)


async def test_a_clock_that_was_behind_ages_only_what_it_dated(bench: Bench) -> None:
    """What waits in front of an old date, and is young, neither becomes a gap nor goes.

    It does when its own time has come, and what is behind it with it.
    """
    one, other = await bench.friends()
    path = await bench.save(one, PNG)
    early = await bench.post(one, path, **to(other))
    bench.clock.ms -= 40 * DAY
    wrong = await bench.post(one, path, **to(other))
    bench.clock.ms += 40 * DAY + 1
    late = await bench.post(one, path, **to(other))
    await forget(bench)
    assert messages(bench) == {early, wrong, late}
    assert bench.sql("SELECT * FROM gap") == []
    bench.clock.ms += HISTORY * DAY + 1
    await forget(bench)
    assert messages(bench) == set()
    await bench.close()
    assert_whole(bench)
    await bench.open()


def test_history_is_not_shorter_than_repeats_are_known(tmp_path: Path) -> None:
    """A repeat is known by the message that it repeats, so such settings are refused."""
    environ = {"PUSHD_STORE_HISTORY_DAYS": "3"}
    with pytest.raises(ConfigError, match="3 is less than limits"):
        load(None, {}, environ)
    environ["PUSHD_LIMITS_CLIENT_ID_DAYS"] = "3"
    assert load(None, {}, environ).store.history_days == 3


async def test_compacting_gives_the_space_back(bench: Bench) -> None:
    """The store is smaller and as whole as before; a running server is not touched."""
    one, other = await bench.friends()
    path = await bench.save(one, PNG)
    for number in range(200):
        await bench.post(one, path, **to(other), client_id=f"{number}".rjust(64, "x"))
    bench.clock.ms += (HISTORY + 1) * DAY
    await forget(bench)
    with pytest.raises(StoreRefused, match="another pushd uses this folder"):
        compact(bench.folder)
    await bench.close()
    before, after = compact(bench.folder)
    assert after < before
    assert (bench.folder / FILE).stat().st_size == after
    assert_whole(bench)
    with pytest.raises(StoreRefused, match="there is no store"):
        compact(bench.folder / "none")
    await bench.open()
