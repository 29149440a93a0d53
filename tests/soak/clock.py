"""Turn the clock of the machine under a running server, both ways, and look at what it promises.

    python -m tests.soak.clock --jumps 20

Order, deadlines and budgets never come from the wall clock; what is kept for days does. Each rule
below is run with the clock moved by libfaketime (the monotonic clock stays as it is; first that is
made sure of), or with a clock injected where there is none. As a control the monotonic clock is
moved too: then the deadlines must fail. Exit code 1 if a rule does not hold.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from tests.conformance.wire import Closed, Frame, Wire, befriend, content, text
from tests.disk.crash import Campaign
from tests.model.record import record
from tests.soak.turned import DAY, HOUR, LIBRARY, MINUTE, NEEDED, Turned

JUMPS = (40 * DAY, -HOUR, -40 * DAY, HOUR)
TOLERANCE = 0.05
SWEEP = 0.25  # seconds, the grain of deadlines
PATIENCE = 60.0

# Nothing is old here, however far the clock is turned: what is confirmed must all arrive.
AGELESS = {"queue_days": 36500, "queue_device_days": 36500, "limits_client_id_days": 3650}

ZONES = ("Asia/Kolkata", "America/New_York", "Asia/Kathmandu")
# Changes of the clocks in New York: forward and back.
CHANGES = (datetime(2027, 3, 14, 7, tzinfo=UTC), datetime(2027, 11, 7, 6, tzinfo=UTC))

# What clients may say of the time: none of it is looked at.
CREATE_TIMES = ("1970-01-01T00:00:00", "9999-12-31T23:59:59", "2024-02-30T12:00:00", "", "soon")
CREATE_TIMES += ("2026-11-25T10:00:00+05:45",)


# --- the clocks themselves ----------------------------------------------------------------

PROBE = """
import asyncio, json, sys, time, uvloop
async def look():
    loop = asyncio.get_running_loop()
    clocks = loop.time, time.monotonic, time.time
    before = [clock() for clock in clocks]
    await asyncio.sleep(0.3)
    return [clock() - was for clock, was in zip(clocks, before)] + [time.time()]
runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
print(json.dumps(runner.run(look())))
"""


def check_library() -> str:
    """Make sure that the library moves the wall clock and no other; "" if all is as it must be."""
    faked = {"LD_PRELOAD": LIBRARY, "FAKETIME": "+40d x10", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        env={**os.environ, **faked},
        capture_output=True,
        text=True,
        check=True,
    )
    loop, monotonic, wall, now = json.loads(done.stdout)
    if not (loop > 0.29 and abs(loop - monotonic) < 0.1):
        return f"the loop's clock went {loop:.2f} s in {monotonic:.2f} s"
    if not (wall > 5 * monotonic and now - time.time() > 39 * DAY):
        return f"the wall clock went {wall:.2f} s in {monotonic:.2f} s, {now - time.time():.0f} off"
    return ""


# --- order --------------------------------------------------------------------------------


async def order(folder: Path, jumps: int, seed: int, rounds: int = 1, **options: object) -> str:
    """Nothing is lost, doubled or out of order when the clock jumps, and over restarts (I1 to I8).

    The clock jumps both ways while 20 clients send at full speed to a server that is killed and
    started again and again.
    """
    rng = random.Random(seed)
    crash = Campaign(folder, seed, (0.3, 1.2))
    crash.server = own = Turned(folder, **AGELESS, **options)
    count = 0

    async def turn() -> None:
        nonlocal count
        while count < 2 * jumps:
            await asyncio.sleep(rng.uniform(0.05, 0.3))
            if own.running:
                own.turn(rng.choice(JUMPS[:2]) if count % 2 == 0 else rng.choice(JUMPS[2:]))
                count += 1

    try:
        await crash.set_up()
        turning = asyncio.create_task(turn())
        while not turning.done() or crash.totals.rounds < rounds:
            report = await crash.round()
            assert not report.violations, report.violations[:5]
        turning.result()
    finally:
        await crash.close()
    assert "Traceback" not in own.log_text(), own.log_text()[-2000:]
    report = crash.totals.report
    return f"{count} jumps, {crash.totals.rounds} kills, {report.confirmed} messages"


async def fast(folder: Path, rounds: int, seed: int) -> str:
    """The same with a clock that is 40 days ahead, an hour behind or ten times as fast."""
    crash = Campaign(folder, seed, (0.3, 1.2))
    crash.server = own = Turned(folder, **AGELESS)
    try:
        own.turn(40 * DAY)
        await crash.set_up()
        for number in range(rounds):
            offset, speed = ((-HOUR, 1.0), (0.0, 10.0), (40 * DAY, 1.0))[number % 3]
            own.turn(offset, speed)
            report = await crash.round()
            assert not report.violations, report.violations[:5]
    finally:
        await crash.close()
    return f"{rounds} rounds, {crash.totals.report.confirmed} messages"


# --- what follows the monotonic clock -----------------------------------------------------


async def deadlines(
    folder: Path, jumps: int, seconds: int, *, speed: float = 1.0, **options: object
) -> str:
    """Idle times and budgets are as long as ever while the clock jumps or runs, within 5 %.

    A started device is closed after 1.5 times its heartbeat, one without a login after
    `login_idle`; who writes is not closed; a budget gives its next token when it said.
    """
    heartbeat = seconds * 2 // 3
    own = Turned(
        folder,
        limits_heartbeat_min=1,
        limits_login_idle=seconds,
        limits_typing=60 // seconds,
        **options,
    )
    own.start()
    try:
        a, b = await own.dial.pair()
        idle, _ = await own.dial.pair(heartbeat=heartbeat)
        stranger = await own.dial()
        own.turn(0.0, speed)
        delays = [0.0]
        turning = asyncio.create_task(_jump(own, jumps, seconds) if speed == 1.0 else _nothing())
        talking = asyncio.create_task(_talk(b, delays))
        found = await asyncio.gather(
            _until_closed(idle), _until_closed(stranger), _until_allowed(a, b)
        )
        assert not talking.done(), "who writes was closed"
    finally:
        for task in (turning, talking):
            task.cancel()
        await asyncio.gather(turning, talking, return_exceptions=True)
        own.dial.close()
        own.kill()
    names = ("heartbeat", "login", "budget")
    wanted = (heartbeat * 1.5, seconds, 60 / (60 // seconds))
    for name, took, right in zip(names, found, wanted, strict=True):
        # A busy machine is late, with the answer that begins the time as well: as late as pings.
        late = max(delays)
        low, high = right * (1 - TOLERANCE) - late, right * (1 + TOLERANCE) + SWEEP + late
        assert low <= took <= high, f"{name}: {took:.2f} s instead of {right:.2f} s"
    return ", ".join(f"{name} {took:.2f} s" for name, took in zip(names, found, strict=True))


async def _jump(own: Turned, jumps: int, seconds: float) -> None:
    for number in range(2 * jumps):
        own.turn(JUMPS[number % 2])
        await asyncio.sleep(0.8 * seconds / (2 * jumps))


async def _nothing() -> None:
    return None


async def _talk(wire: Wire, delays: list[float]) -> None:
    """Keep a session alive that no jump may end; notes how long its pings took."""
    while True:
        began = time.monotonic()
        await wire.fence()
        delays.append(time.monotonic() - began)
        await asyncio.sleep(0.3)


async def _until_closed(wire: Wire) -> float:
    await wire.fence()
    began = time.monotonic()
    try:
        while True:
            await wire.recv(PATIENCE)
    except Closed:
        return time.monotonic() - began


async def _until_allowed(a: Wire, b: Wire) -> float:
    """Use a budget up, and give the seconds until one more is allowed."""

    async def allowed() -> bool:
        reply = await a.command("typing", userId=b.user_id)
        assert reply["status"] in (1, 4290), reply
        return bool(reply["status"] == 1)

    began = time.monotonic()
    while await allowed():
        pass
    # The first one comes back first, and one that is refused uses nothing up.
    for _ in range(int(PATIENCE / 0.05)):
        await asyncio.sleep(0.05)
        if await allowed():
            break
    return time.monotonic() - began


# --- what is kept for days ----------------------------------------------------------------


async def forty_days(folder: Path, **options: object) -> str:
    """What waits is not deleted without a report: 40 days later there is a gap, and history.

    A jump alone deletes nothing, and a server that starts with a wrong clock and is put right
    loses nothing either.
    """
    own = Turned(folder, **options)
    own.start()
    try:
        a, b = await own.dial.pair()
        b.close()
        await a.post(*(text(b.user_id, f"{n}") for n in range(30)))
        own.turn(40 * DAY)
        b, bound = await own.dial.resume(b.push_id)
        assert bound["queued"] == 30, bound
        got = [content(one) for one in await b.expect_delivery(30)]
        assert got == [f"{n}" for n in range(30)], got
        b.close()
        await _restarted(own)
        b, bound = await _expired(own, b)
        [gap] = await b.expect_delivery()
        assert gap["event"]["name"] == "gap", gap
        assert gap["seq"] - gap["event"]["seqFrom"] == 29, (gap, bound)
        [chat] = gap["event"]["chats"]
        shown = await b.ok("history", **chat | {"limit": 100})
        assert [content(one) for one in shown] == got, shown
        # Back again: the next message has the next numbers.
        own.turn(0.0)
        a, _ = await own.dial.resume(a.push_id)
        row = await a.say(b.user_id, "after")
        [last] = await b.expect_delivery()
        assert last["seq"] == gap["seq"] + 1, last
        assert int(row["msgId"]) > int(gap["msgId"])
    finally:
        own.dial.close()
        own.kill()
    return "30 of 30 reported"


async def _expired(own: Turned, wire: Wire) -> tuple[Wire, Frame]:
    """Take a device up until what waits is one gap: upkeep works beside, from the start on."""
    deadline = time.monotonic() + PATIENCE
    while True:
        wire, bound = await own.dial.resume(wire.push_id)
        first = (await wire.packet())["message"][0]
        wire.pushed.appendleft({"status": 1, "message": [first]})
        if bound["queued"] == 1 and first.get("event", {}).get("name") == "gap":
            return wire, bound
        assert time.monotonic() < deadline, f"no gap: {bound}, {first}"
        wire.close()


async def set_back(folder: Path, **options: object) -> str:
    """A clock that was wrong for a while ages only what it dated: the rest is not cut short.

    Between messages of today lie some that a clock 40 days behind has dated. When it is right
    again, only those are old: of them the queue reports a gap, in front of which nothing is lost.
    """
    own = Turned(folder, **options)
    own.start()
    try:
        a, b = await own.dial.pair()
        c = await own.dial.user(started=True)
        await befriend(a, c)
        b.close()
        c.close()
        for offset, words in ((0.0, "early"), (-40 * DAY, "wrong"), (0.0, "late")):
            own.turn(offset)
            await a.post(*(text(b.user_id, f"{words} {n}") for n in range(9)))
            if offset:
                await a.say(c.user_id, "old")
        await _restarted(own)
        # Queues are looked at in the order of devices, and that of c is the younger one.
        c, _ = await _expired(own, c)
        b, bound = await own.dial.resume(b.push_id)
        assert bound["queued"] == 27, f"cut short: {bound}"
        got = [content(one) for one in await b.expect_delivery(27)]
        assert got == [f"{words} {n}" for words in ("early", "wrong", "late") for n in range(9)]
    finally:
        own.dial.close()
        own.kill()
    return "27 of 27 kept"


async def history(folder: Path, **options: object) -> str:
    """With a limit on history only what is older goes, whatever the clock was in between."""
    own = Turned(folder, store_history_days=10, **options)
    own.start()
    try:
        a, b = await own.dial.pair()
        for offset, words in ((0.0, "early"), (-HOUR, "behind"), (9 * DAY, "later"), (0.0, "late")):
            own.turn(offset)
            await a.post(*(text(b.user_id, f"{words} {n}") for n in range(5)))
            await b.take(5)
        await b.fence()
        shown = await _said(a, b.user_id)
        numbers = [int(one["msgId"]) for one in shown]
        assert numbers == sorted(numbers)
        assert [content(one).split()[0] for one in shown][::5] == [
            "early",
            "behind",
            "later",
            "late",
        ], shown
        # What was dated before others but sent behind them goes with them, and not earlier.
        for days, left in ((9, 20), (11, 10), (20, 0)):
            own.turn(days * DAY)
            await _restarted(own)
            a, _ = await own.dial.resume(a.push_id)
            shown = await _history_of(own, a, b.user_id, left)
            assert not any("behind" in content(one) for one in shown) or left == 20, shown
    finally:
        own.dial.close()
        own.kill()
    return "kept for 10 days, gone after 11"


async def _history_of(own: Turned, a: Wire, user: str, count: int) -> list[Frame]:
    """Read history until upkeep has left so many; it works beside, from the start on."""
    deadline = time.monotonic() + PATIENCE
    while True:
        shown = await _said(a, user)
        if len(shown) == count or time.monotonic() > deadline:
            assert len(shown) == count, f"{len(shown)} of {count} are left"
            return shown
        await asyncio.sleep(0.05)


async def _said(a: Wire, user: str) -> list[Frame]:
    """Give what was said in a chat, without the server's own messages."""
    shown = await a.ok("history", userId=user, limit=100)
    return [one for one in shown if one["type"] == "1"]


async def client_ids(folder: Path, **options: object) -> str:
    """A clientId is known for 7 days, by whatever way the clock came there."""
    own = Turned(folder, **options)
    own.start()
    try:
        a, b = await own.dial.pair()
        first = await a.say(b.user_id, "once", clientId="c-1")
        for offset in (HOUR, -HOUR, 3 * DAY, -3 * DAY, 7 * DAY - MINUTE):
            own.turn(offset)
            if offset >= 3 * DAY:
                await _restarted(own)
                a, _ = await own.dial.resume(a.push_id)
            again = await a.say(b.user_id, "once", clientId="c-1")
            assert again["msgId"] == first["msgId"], (offset, again, first)
    finally:
        own.dial.close()
        own.kill()
    return "7 days"


async def ends(folder: Path, **options: object) -> str:
    """An expired message is not delivered, and a mute ends at the date that it names."""
    own = Turned(folder, **options)
    own.start()
    try:
        a, b = await own.dial.pair()
        made = await a.ok("create_group", name="G", kind="group", userIds=[b.user_id])
        group = made["id"]
        [notice] = await b.expect_delivery(ack=True)
        assert notice["event"]["name"] == "joined"
        b.close()
        await a.say(b.user_id, "short", expire=60)
        own.turn(61.0)
        b, _ = await own.dial.resume(b.push_id)
        await b.fence()
        assert not [one for one in b.pushed if "short" in json.dumps(one)], b.pushed
        assert not await _said(b, a.user_id)
        own.turn(0.0)
        await a.ok("mute", groupId=group, userId=b.user_id, seconds=600)
        speech = {**text("", "hi"), "chatId": group, "type": "7"}
        for offset, status in ((0.0, 4004), (-HOUR, 4004), (590.0, 4004), (601.0, 1)):
            own.turn(offset)
            reply = await b.send([speech])
            assert reply["status"] == status, (offset, reply)
    finally:
        own.dial.close()
        own.kill()
    return "expire and mute"


# --- dates --------------------------------------------------------------------------------


async def zones(folder: Path, zone: str, **options: object) -> str:
    """Dates are those of `server.zone`, never of TZ; over a change of the clocks numbers rise.

    What clients say in `createTime` is never looked at and never refused.
    """
    for shown in ("UTC", zone):
        here = folder / shown.replace("/", "-")
        here.mkdir()
        own = Turned(here, zone=zone, server_zone=shown, **options)
        own.turn(CHANGES[0].timestamp() - time.time() - 3600)
        own.start()
        try:
            await _over_changes(own, shown)
        finally:
            own.dial.close()
            own.kill()
        assert all(line["ts"].endswith("Z") for line in own.lines())
    return f"TZ={zone}, over {len(CHANGES)} changes"


async def _over_changes(own: Turned, zone: str) -> None:
    a, b = await own.dial.pair()
    newest, seq = 0, 0
    for change in CHANGES:
        for seconds in (-3601, -1, 0, 1, 3601):
            own.turn(change.timestamp() + seconds + 0.2 - time.time())
            for said in CREATE_TIMES if seconds == 0 else ("",):
                row = await a.say(b.user_id, "x", createTime=said)
                [got] = await b.expect_delivery(ack=True)
                assert int(row["msgId"]) == int(got["msgId"]) > newest, (row, newest)
                assert not seq or got["seq"] == seq + 1, got
                newest, seq = int(got["msgId"]), got["seq"]
                date = datetime.fromtimestamp(got["time"] // 1000, ZoneInfo(zone))
                assert got["createTime"] == date.strftime("%Y-%m-%dT%H:%M:%S"), got
                assert abs(got["time"] / 1000 - own.now) < 30, got
                reply = await a.command("ping")
                assert abs(_seconds(reply["date"], zone) - own.now) < 30 + 3600, reply


def _seconds(date: str, zone: str) -> float:
    return datetime.fromisoformat(date).replace(tzinfo=ZoneInfo(zone)).timestamp()


async def _restarted(own: Turned) -> None:
    """Kill and start: upkeep begins with the start."""
    own.kill()
    await asyncio.to_thread(own.start)


# --- the tool -----------------------------------------------------------------------------

Rule = Callable[[Path], Awaitable[str]]


def rules(jumps: int, seed: int, **options: object) -> dict[str, Rule]:
    """Name all rules; those that only libfaketime can turn are left out without it."""
    found: dict[str, Rule] = {
        "jumps under load": lambda folder: order(folder, jumps, seed, **options),
        "the same, injected": lambda folder: order(folder, jumps, seed, rounds=10, library=""),
        "deadlines, jumps": lambda folder: deadlines(folder, jumps, 12, **options),
        "40 days": lambda folder: forty_days(folder, **options),
        "set back": lambda folder: set_back(folder, **options),
        "history": lambda folder: history(folder, **options),
        "clientIds": lambda folder: client_ids(folder, **options),
        "expire and mute": lambda folder: ends(folder, **options),
    }
    for zone in ZONES:
        found[zone] = lambda folder, zone=zone: zones(folder, zone, **options)  # type: ignore[misc]
    if LIBRARY:
        found["started wrong or fast"] = lambda folder: fast(folder, 9, seed)
        found["deadlines, ten times"] = lambda folder: deadlines(folder, 0, 12, speed=10.0)
    return found


async def control(folder: Path, seconds: int = 12) -> str:
    """Say how a server is found out whose monotonic clock jumps as well."""
    try:
        found = await deadlines(folder, 5, seconds, monotonic=True)
    except (AssertionError, OSError, EOFError) as problem:
        return f"caught: {str(problem)[:100]}"
    return f"NOT caught: {found}"


async def run(jumps: int, seed: int) -> tuple[dict[str, str], list[str]]:
    """Run all rules; gives what each came to, and the violations."""
    figures: dict[str, str] = {}
    violations = []
    for name, rule in rules(jumps, seed).items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                figures[name] = await rule(Path(folder))
            except (AssertionError, TimeoutError, EOFError, OSError) as problem:
                figures[name] = f"FAILED: {problem}"[:300]
                violations.append(f"{name}: {problem}"[:1000])
        print(f"{name:<24}{figures[name]}", flush=True)
    return figures, violations


def main() -> int:
    """Run from the command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.clock", description=__doc__)
    parser.add_argument("--jumps", type=int, default=20, help="each way")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    print(f"seed                    {options.seed}")
    print(f"libfaketime             {LIBRARY or NEEDED}")
    controls = {}
    problem = check_library() if LIBRARY else ""
    if problem:
        print(problem)
        return 1
    figures, violations = asyncio.run(run(options.jumps, options.seed))
    if LIBRARY:
        with tempfile.TemporaryDirectory() as folder:
            outcome = asyncio.run(control(Path(folder)))
        controls["the monotonic clock jumps too"] = outcome
        print(f"{'control':<24}{outcome}")
        if not outcome.startswith("caught"):
            violations.append(f"control: {outcome}")
    figures["load average"] = f"{os.getloadavg()[0]:.1f}"
    record("time", figures, violations, controls)
    print("\n".join([f"violations              {len(violations)}", *violations]))
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
