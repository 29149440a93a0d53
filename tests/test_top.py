"""`pushctl top` without a server: two answers compared, and both ways to show them."""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pushd import metrics
from pushd.ctl import pushctl, watching
from pushd.ctl.calls import NotReached
from pushd.ctl.top import LATENCIES, RATES, compare, figures, heading, quantile, text
from tests.fake_control import answering

ROWS = {row.name: row for row in metrics.METRICS}


def histogram(*counts: int) -> dict[str, Any]:
    """A histogram of the bounds 1, 2 and 4, with so many values in each, and beyond."""
    within = [sum(counts[: place + 1]) for place in range(3)]
    return {
        "count": sum(counts),
        "sum": 1.0,
        "buckets": [list(pair) for pair in zip((1, 2, 4), within, strict=True)],
    }


def answer(uptime: float = 100.0, **changed: Any) -> dict[str, Any]:
    """A reply to `top`, with these metrics."""
    found: dict[str, Any] = {
        row.name: histogram(0, 0, 0, 0) if row.kind == "histogram" else 0 for row in metrics.METRICS
    }
    found |= {
        "time": 5000.0 + uptime,
        "pushd_uptime_seconds": uptime,
        "pushd_ready": 1,
        "pushd_build_info": {"version": "1.2.3"},
        "pushd_connections": {"tcp": 3, "tls": 1},
        "pushd_commands_total": {"ping": 0, "login": 0},
        "pushd_refusals_total": {"4004": 0},
        "pushd_queue_oldest_seconds": {"all": 0, "online": 0},
    }
    slowest, queues = changed.pop("slowest", []), changed.pop("queues", [])
    found |= {f"pushd_{name}": value for name, value in changed.items()}
    return {"metrics": found, "slowest": slowest, "queues": queues}


def behind(device: str, waiting: int, name: str = "10001") -> dict[str, Any]:
    """A row of a device."""
    return {
        "connection": 1,
        "userId": name,
        "deviceId": device,
        "address": "192.0.2.1",
        "seconds": 60,
        "waiting": waiting,
        "bytes": 2048,
    }


# Comparing


def test_what_is_compared_exists() -> None:
    """Each rate is that of a counter, each latency that of a histogram."""
    assert {ROWS[name].kind for name in RATES.values()} == {"counter"}
    assert {ROWS[name].kind for name in LATENCIES.values()} == {"histogram"}


def test_rates() -> None:
    """A rate is the difference by the time between, of a table that of all its values."""
    before = answer(100.0, messages_accepted_total=50, commands_total={"ping": 10, "login": 1})
    after = answer(102.5, messages_accepted_total=100, commands_total={"ping": 15, "login": 1})
    view = compare(before, after)
    assert (view.seconds, view.restarted) == (2.5, False)
    assert view.rates["accepted"] == 20.0
    assert view.rates["commands"] == 2.0
    assert view.commands == [("ping", 2.0)]
    assert view.refusals == []
    assert view.now["pushd_ready"] == 1
    assert not any(name.endswith(("_total", "sync_seconds")) for name in view.now)


def test_the_clock_of_the_wall_may_jump() -> None:
    """The time between is the server's own, not that of a clock that people set."""
    before, after = answer(100.0), answer(102.0, frames_total={"list": 10})
    after["metrics"]["time"] = 1.0
    assert compare(before, after).rates["frames"] == 5.0


def test_a_server_that_was_restarted() -> None:
    """After a restart rates are those since it; nothing falls below zero."""
    before = answer(100.0, messages_accepted_total=1000, sync_seconds=histogram(9, 9, 9, 9))
    after = answer(4.0, messages_accepted_total=8, sync_seconds=histogram(4, 0, 0, 0))
    view = compare(before, after)
    assert view.restarted
    assert view.rates["accepted"] == 2.0
    assert all(rate >= 0 for rate in view.rates.values())
    assert view.latencies["sync"] == (0.5, 0.99)
    assert "RESTARTED" in heading(view)


def test_the_same_answer_twice() -> None:
    """Without time between there is no rate, and no division by zero."""
    view = compare(answer(0.0), answer(0.0))
    assert set(view.rates.values()) == {0.0}


@pytest.mark.parametrize(
    ("counts", "part", "expected"),
    [
        ((0, 0, 0, 0), 0.5, 0.0),
        ((4, 0, 0, 0), 0.5, 0.5),
        ((0, 4, 0, 0), 0.5, 1.5),
        ((0, 0, 4, 0), 1.0, 4.0),
        ((1, 1, 2, 0), 0.5, 2.0),
        ((1, 1, 2, 0), 0.75, 3.0),
        ((0, 0, 0, 4), 0.5, 4.0),  # beyond the last bound: at least that
    ],
)
def test_quantiles(counts: tuple[int, ...], part: float, expected: float) -> None:
    """A quantile lies within its bucket as if values were spread evenly."""
    found = histogram(*counts)
    buckets = [(bound, seen) for bound, seen in found["buckets"]]
    assert quantile(buckets, found["count"], part) == expected


def test_latencies_are_of_the_time_between() -> None:
    """What was slow before does not count."""
    before = answer(100.0, loop_lag_seconds=histogram(0, 0, 50, 50))
    after = answer(101.0, loop_lag_seconds=histogram(10, 0, 50, 50))
    assert compare(before, after).latencies["loop"] == (0.5, 0.99)


def test_changes_of_rows() -> None:
    """A device or a queue that was there before has its change; one that is new has none."""
    before = answer(1.0, slowest=[behind("1", 5), behind("2", 5), behind("4", 3)])
    after = answer(2.0, slowest=[behind("1", 9), behind("2", 1), behind("3", 1), behind("4", 3)])
    changes = [row["change"] for row in compare(before, after).slowest]
    assert changes == ["+4", "-4", "", "0"]


def test_the_most_frequent() -> None:
    """Commands are named by their rate, a few of them only."""
    names = [f"c{number:02}" for number in range(20)]
    before = answer(1.0, commands_total=dict.fromkeys(names, 0))
    after = answer(2.0, commands_total={name: place for place, name in enumerate(names)})
    found = compare(before, after).commands
    assert found[0] == ("c19", 19.0)
    assert len(found) == 8


# As text


def test_text() -> None:
    """All is there: the server, its rates, what is behind; a name moves no cursor."""
    before = answer(100.0)
    after = answer(
        102.0,
        messages_accepted_total=5,
        refusals_total={"4004": 4},
        disk_full=1,
        slowest=[behind("7", 12, "1\x1b[2J")],
        queues=[{"userId": "10009", "deviceId": "", "waiting": 99}],
    )
    shown = text(compare(before, after))
    assert "pushd 1.2.3  up 1m 42s  DISK FULL  4 connections" in shown
    assert "refusals: 4004 2.0/s" in shown
    assert "\x1b" not in shown
    assert "2.0 KiB" in shown
    assert shown.splitlines()[-1].split() == ["10009", "-", "99", "-"]
    titles, values = figures(compare(before, after)).splitlines()[:2]
    assert titles.split()[0] == "ACCEPTED/S"
    assert values.split()[0] == "2.5"


# The verb


@contextmanager
def server(path: Path, *answers: dict[str, Any]) -> Iterator[None]:
    """Answer each question at a control socket, which must be for `top`; then close."""
    replies = [{"cmd": "top", "status": 1, "message": "ok", "result": each} for each in answers]
    with answering(path, *(json.dumps(each).encode() + b"\n" for each in replies)) as asked:
        yield
    assert [json.loads(line)["cmd"] for line in asked] == ["top"] * len(answers)


def test_a_count(tmp_path: Path) -> None:
    """With a count so many views are printed; without a terminal they are plain."""
    path = tmp_path / "s"
    answers = [answer(100.0 + step, messages_accepted_total=3 * step) for step in range(3)]
    with server(path, *answers):
        words = ["top", "--socket", str(path), "--interval", "0.1", "--count", "2", "--json"]
        result = CliRunner().invoke(pushctl, words)
    assert result.exit_code == 0, result.output
    views = [json.loads(line) for line in result.stdout.splitlines()]
    assert [view["rates"]["accepted"] for view in views] == [3.0, 3.0]


def test_a_server_that_goes(tmp_path: Path) -> None:
    """A server that goes away ends it with 3 and one line."""
    path = tmp_path / "s"
    with server(path, answer(1.0), answer(2.0)):
        words = ["top", "--socket", str(path), "--interval", "0.1"]
        result = CliRunner().invoke(pushctl, words)
    assert result.exit_code == 3
    assert "pushd 1.2.3" in result.stdout
    assert result.stderr.startswith(f"{path}: ")
    assert result.stderr.count("\n") == 1


def test_an_interrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control-C ends it in order."""

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watching.time, "sleep", interrupted)
    path = tmp_path / "s"
    with server(path, answer(1.0)):
        result = CliRunner().invoke(pushctl, ["top", "--socket", str(path), "--plain"])
    assert (result.exit_code, result.output) == (0, "")


@pytest.mark.parametrize(
    ("terminal", "extra", "screen"),
    [(True, True, True), (True, False, False), (False, True, False)],
)
def test_when_there_is_a_screen(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, extra: bool, screen: bool
) -> None:
    """A screen needs a terminal and the extra; else it is plain."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(watching, "find_spec", lambda name: object() if extra else None)
    assert watching._has_screen() is screen


# The screen


@pytest.mark.slow
async def test_the_screen() -> None:
    """The screen shows the second answer, is held by space, and goes with q."""
    pytest.importorskip("textual")
    from pushd.ctl.screen import Screen

    steps = iter(range(1000))

    def ask() -> dict[str, Any]:
        step = next(steps)
        return answer(100.0 + step, messages_accepted_total=7 * step)

    app = Screen(ask, 0.05)
    async with app.run_test(size=(160, 40)) as pilot:
        while "pushd 1.2.3" not in shown(app):
            await pilot.pause(0.02)
        assert "7.0" in shown(app)
        await pilot.press("space")
        held = shown(app)
        await pilot.pause(0.3)
        assert shown(app) == held
        await pilot.press("space")
        while shown(app) == held:
            await pilot.pause(0.02)
        await pilot.press("q")
    assert app.return_value is None


def shown(app: Any) -> str:
    return str(app._view.content)


@pytest.mark.slow
async def test_the_screen_ends_with_the_server() -> None:
    """A server that is gone ends the screen, and is what it returns."""
    pytest.importorskip("textual")
    from pushd.ctl.screen import Screen

    problem = NotReached("gone")

    def ask() -> dict[str, Any]:
        raise problem

    app = Screen(ask, 0.05)
    async with asyncio.timeout(10), app.run_test() as pilot:
        while app.return_value is None:
            await pilot.pause(0.02)
    assert app.return_value is problem
