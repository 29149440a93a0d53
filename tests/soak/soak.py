"""Run a server for hours among phones that come and go, and see whether it stays as it was.

    python -m tests.soak.soak --minutes 60 --devices 200

Pairs and groups write at a low rate; 5 % of the phones a minute disconnect, vanish, are replaced,
or sign out and start anew. The server is killed and started again (every hour, in a short run
twice), backed up, told to reload; somebody holds a read transaction for a sixth of the time; files
are saved and sent. Every few minutes all is quiet for a moment, and what the phones saw is held
against `tests.model.checker`: so memory stays bounded however long the run is.

Every 10 s memory, descriptors, tasks, threads, files and latencies are read. At the end they are
held against the bars of `tests.soak.figures`, and all is printed. Exit code 1 if a bar does not
hold or there is a violation. `--variant` runs a server with a fault that must be found.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.conformance.operated import Operated
from tests.conformance.wire import Frame, Wire
from tests.model.checker import Report, check
from tests.model.record import FOLDER, commit, record
from tests.soak.figures import DAY, Bars, Sample, Verdict, judge, log_verdict, quantile
from tests.soak.phones import HEARTBEAT, Book, Chat, Hole, Order, Phone
from tests.soak.variants import MEANT, VARIANTS, program

GROUP = 10  # members
GROUP_SHARE = 0.2  # of what is sent goes to groups
FILE_EVERY = 5.0  # seconds between two files
FILE_BYTES = (1_000, 60_000)
LISTS = (1, 1, 1, 2, 5)  # messages in one list
# How connections end, and for how many seconds the phone is away then. One that vanished is away
# until the server has given it up.
ENDS = (
    Order("close", 5.0),
    Order("abort", 5.0),
    Order("close", 60.0),
    Order("vanish", 2.0 * HEARTBEAT),
    Order("replace", 0.0),
    Order("renew", 0.5),
)
CHURN = 0.05  # of the devices a minute
SHORT_LOG = 1 << 20  # bytes to which a short run's write-ahead log is brought back
CALM_PATIENCE = 120.0  # seconds until all phones are back and answered
AT_ONCE = 20  # phones that connect anew at the same time, to be judged
STOP_PATIENCE = 10.0  # seconds for the server to stop
# Caches are small, so that they are full when the warm-up ends.
SETTINGS: dict[str, object] = {
    "log_format": "logfmt",
    "store_cache_bytes": 1 << 20,
    "store_young_rows": 8192,
    "store_young_client_ids": 1024,
    "trace_commits": 1024,
    "trace_packets": 1024,
    "limits_files": 1_000_000,
    "limits_friend_requests": 1_000_000,
}


@dataclass(frozen=True)
class Plan:
    """How long, with how many, and when what happens; in seconds."""

    seconds: float
    devices: int = 200
    rate: float = 30.0  # messages a second
    churn: float = CHURN  # of the devices a minute
    between: float = 0.0  # kills; 0 for a third of a short run, and an hour in a long one

    @property
    def every(self) -> float:
        """Between two samples."""
        return min(10.0, self.seconds / 60)

    @property
    def life(self) -> float:
        """From one kill to the next."""
        if self.between:
            return self.between
        return 3600.0 if self.seconds >= 3 * 3600 else self.seconds / 3

    @property
    def warm_up(self) -> float:
        """Of each life: caches fill, the first herds come, and the first backup is made.

        A backup loads what it needs, once: 4 MiB, which would be growth in the rest of an hour.
        """
        return min(self.life, self.seconds) / 2

    @property
    def window(self) -> float:
        """Between two looks at what the phones saw."""
        return min(300.0, self.seconds / 6)

    @property
    def period(self) -> float:
        """In which a read transaction is held once, and so on."""
        return min(3600.0, self.seconds)

    @property
    def settings(self) -> dict[str, object]:
        """A short run cannot fill the log of the store, so that one is made smaller."""
        if self.seconds >= 1800:
            return {}
        return {"store_log_bytes": SHORT_LOG, "store_checkpoint_pages": SHORT_LOG // 2 // 4096}

    @property
    def bars(self) -> Bars:
        """What must hold in such a run."""
        if self.seconds >= 1800:
            return Bars()
        # The log grows with the churn, which is higher in a short run; and memory goes up and down.
        churn = max(1.0, self.churn / CHURN)
        return Bars(noise=2.0, wal=SHORT_LOG, log=10.0 * churn)

    @property
    def grace(self) -> float:
        """After a held transaction, until the log must be small again."""
        return min(60.0, self.seconds / 4)

    @property
    def parts(self) -> int:
        """Into how many parts latencies are divided: hours, or quarters."""
        return max(4, int(self.seconds / 3600))


CONTROL = Plan(240.0, 40, churn=60.0, between=1800.0)  # a run of a server with a fault


class Totals:
    """What all windows came to."""

    def __init__(self) -> None:
        self.report = Report()
        self.windows = 0
        self.kills = self.held = self.backups = self.reloads = self.files = self.renewed = 0
        self.ends: dict[str, int] = {}

    def add(self, report: Report) -> None:
        """Add the report of a window."""
        whole = self.report
        if report.lowest and report.lowest <= whole.highest:
            report.violations.append(f"I3: msgId {report.lowest} was used in an earlier window")
        whole.violations += report.violations[:100]
        for name in ("sent", "confirmed", "delivered", "redelivered", "lost_acks"):
            setattr(whole, name, getattr(whole, name) + getattr(report, name))
        whole.highest = max(whole.highest, report.highest)
        self.windows += 1


class Soak:
    """One server, its phones, and all that happens to them."""

    def __init__(self, folder: Path, plan: Plan, seed: int, variant: str = "", **settings: object):
        self.plan = plan
        self.totals = Totals()
        self.samples: list[Sample] = []
        self.server = Operated(
            folder, "", program=program(variant), **{**SETTINGS, **plan.settings, **settings}
        )
        self._random = random.Random(seed)
        self._book = Book()
        self._phones = [
            Phone(number, self._book, random.Random(seed + number))
            for number in range(1, plan.devices + 1)
        ]
        self._groups: dict[str, list[str]] = {}
        self._calm = False  # nobody begins anything
        self._judging = False  # nobody does anything
        self._staged = asyncio.Lock()  # one kill, backup or judgement at a time
        self._began = 0.0
        self._life = 0
        self._life_began = 0.0
        self._held_until = 0.0  # when the log must be small again
        self._own_lags: list[float] = []
        self._lag = Lag()
        self._herd = 0  # bytes of the log that all make who come back after a kill
        self._log_from = 0  # bytes of the log that setting up and judging made

    # --- setting up -----------------------------------------------------------------------

    async def set_up(self) -> None:
        """Start the server, and make accounts, friends, groups and devices."""
        await asyncio.to_thread(self.server.start)
        wires = [await phone.register(self.server.address) for phone in self._phones]
        for one in range(0, len(wires) - 1, 2):
            await self._befriend(wires, one, one + 1)
        for start in range(0, len(wires), GROUP):
            await self._group(wires[start : start + GROUP], self._phones[start : start + GROUP])
        for phone, wire in zip(self._phones, wires, strict=True):
            await phone.first_start(wire)

    async def _befriend(self, wires: list[Wire], one: int, other: int) -> None:
        await wires[one].ok("add_friend", userId=wires[other].user_id)
        await wires[other].ok("accept_friend", userId=wires[one].user_id)
        for mine, peer in ((one, other), (other, one)):
            self._phones[mine].chats.append(Chat(wires[peer].user_id, "1"))

    async def _group(self, wires: list[Wire], phones: list[Phone]) -> None:
        made = await wires[0].ok("create_group", name="G", kind="tag")
        for wire in wires[1:]:
            await wire.ok("join_group", groupId=made["id"])
        self._groups[made["id"]] = [wire.user_id for wire in wires]
        for phone in phones:
            phone.chats.append(Chat(made["id"], "3"))

    # --- the run --------------------------------------------------------------------------

    async def run(self) -> None:
        """Live for as long as planned; raises what went wrong with the phones."""
        self._began = self._life_began = time.monotonic()
        self._log_from = self._log_size()
        lives = [asyncio.ensure_future(phone.live(self._address)) for phone in self._phones]
        works = [asyncio.ensure_future(work) for work in self._works()]
        course = asyncio.ensure_future(self._course())
        going = {course, *lives, *works}
        try:
            while not course.done():
                done, going = await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            async with self._staged:
                await self._judge()
        finally:
            for task in (course, *lives, *works):
                task.cancel()
            await asyncio.gather(course, *lives, *works, return_exceptions=True)

    async def _course(self) -> None:
        """Be there until the run is over."""
        await asyncio.sleep(self.plan.seconds)

    def _works(self) -> list[Any]:
        plan = self.plan
        return [
            self._talk(),
            self._tick(),
            self._churn(),
            self._share(),
            self._measure_own_lag(),
            self._sample(),
            self._every(plan.life, self._kill),
            self._every(plan.window, self._judge),
            self._every(plan.period / 6, self._back_up, plan.period / 12),
            self._every(plan.period / 12, self._reload, plan.period / 24),
            self._every(plan.period, self._hold, 0.4 * plan.period, staged=False),
        ]

    def _address(self) -> tuple[str, int]:
        return self.server.address

    async def _every(
        self,
        seconds: float,
        work: Callable[[], Awaitable[None]],
        first: float = 0.0,
        staged: bool = True,
    ) -> None:
        """Do something now and then, but nothing in the last moments of the run."""
        due = self._began + (first or seconds)
        end = self._began + self.plan.seconds - min(10.0, self.plan.seconds / 20)
        while due < end:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            async with self._staged if staged else contextlib.AsyncExitStack():
                await work()
            due += seconds

    async def _talk(self) -> None:
        mean = sum(LISTS) / len(LISTS)
        while True:
            await asyncio.sleep(self._random.expovariate(self.plan.rate / mean))
            phone = self._random.choice(self._phones)
            if self._calm or not phone.free:
                continue
            pair, group = phone.chats
            chat = group if self._random.random() < GROUP_SHARE else pair
            phone.say(chat, self._random.choice(LISTS))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            for phone in () if self._judging else self._phones:
                phone.tick()

    async def _churn(self) -> None:
        """End connections, each in one of the ways."""
        pause = 60 / (self.plan.churn * len(self._phones))
        while True:
            await asyncio.sleep(self._random.expovariate(1 / pause))
            how, away = self._random.choice(ENDS)
            # A short run has no time to wait for whole minutes.
            away = min(away, self.plan.window / 3)
            phone = self._random.choice(self._phones)
            if not self._calm and phone.order(how, away):
                self.totals.ends[how] = self.totals.ends.get(how, 0) + 1

    async def _share(self) -> None:
        while True:
            await asyncio.sleep(FILE_EVERY)
            phone = self._random.choice(self._phones)
            if self._calm or not phone.free:
                continue
            # The connection may break in between.
            with contextlib.suppress(ConnectionError):
                await phone.share(phone.chats[0], self._random.randint(*FILE_BYTES))
                self.totals.files += 1

    # --- what happens to the server -------------------------------------------------------

    async def _kill(self) -> None:
        """Kill it and start it again; not while somebody is between two devices."""
        self._calm = True
        await self._until(lambda: not self._book.renewing, "a phone does not come back")
        self._calm = False
        self.totals.kills += 1
        most = sum(phone.online for phone in self._phones) * 0.98
        written, turns = self._log_size(), [phone.turns for phone in self._phones]
        self.server.kill()
        await asyncio.to_thread(self.server.start)
        self._life += 1
        self._life_began = time.monotonic()
        self._lag = Lag()
        pairs = list(zip(self._phones, turns, strict=True))
        await self._until(lambda: sum(one.turns > turn for one, turn in pairs) > most, "not back")
        # A kill an hour is told of in what the log comes to; a short run has more.
        herd = self._log_size() - written
        self._herd = max(self._herd, herd)
        self._log_from += herd

    async def _back_up(self) -> None:
        target = self.server.folder / "backup.tar.gz"
        wire = self.server.dial.operator(str(self.server.data / "control.sock"))
        try:
            job = await wire.ok("backup", file=str(target))
            while job["state"] == "running":
                await asyncio.sleep(0.2)
                job = await wire.ok("job")
        finally:
            wire.close()
        if job["state"] != "done":
            raise Hole(f"a backup: {job}")
        target.unlink()
        self.totals.backups += 1

    async def _reload(self) -> None:
        self.totals.reloads += 1
        self.server.file.write_text(f"[limits]\nrecall = {100 + self.totals.reloads % 2}\n")
        wire = self.server.dial.operator(str(self.server.data / "control.sock"))
        try:
            self.server.signal(signal.SIGHUP)
            await wire.fence()
        finally:
            wire.close()

    async def _hold(self) -> None:
        """Hold a read transaction of the store, as a forgotten shell does."""
        path = (self.server.data / "pushd.db").absolute()
        db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)
        with contextlib.closing(db):
            db.execute("BEGIN")
            db.execute("SELECT count(*) FROM message").fetchone()
            self._held_until = float("inf")
            self.totals.held += 1
            await asyncio.sleep(self.plan.period / 6)
        self._held_until = time.monotonic() + self.plan.grace

    # --- judging --------------------------------------------------------------------------

    async def _until(self, holds: Callable[[], bool], problem: str) -> None:
        deadline = time.monotonic() + CALM_PATIENCE
        while not holds():
            if time.monotonic() > deadline:
                raise Hole(problem)
            await asyncio.sleep(0.05)

    async def _judge(self) -> None:
        """Have all come to rest, and hold what they saw against the promises."""
        self._calm = True
        written = self._log_size()
        for phone in self._phones:
            phone.hurry()
        await self._settled()
        await self._fence()
        await self._again()
        await self._fence()
        # What comes now finds nothing waiting, and nothing happens until it is judged.
        self._judging = True
        await self._again()
        waiting = [phone.number for phone in self._phones if phone.waited]
        if waiting:
            self.totals.report.violations.append(f"I7: queues of {waiting} do not get empty")
        self.totals.add(check(self._book.log, self._groups))
        self._book.log.clear()
        for phone in self._phones:
            phone.begin_log()
        # Nobody's phones do all that every few minutes.
        self._log_from += self._log_size() - written
        self._judging = self._calm = False

    async def _again(self) -> None:
        """Have all connect anew, and take in what waits."""
        for start in range(0, len(self._phones), AT_ONCE):
            some = self._phones[start : start + AT_ONCE]
            before = [(phone, phone.turns) for phone in some]
            for phone in some:
                if not phone.order("close"):
                    raise Hole(f"phone {phone.number} is not online while all is quiet")
            await self._until(lambda: all(one.turns > turn for one, turn in before), "not back")  # noqa: B023
        await self._settled()

    async def _settled(self) -> None:
        def late() -> list[int]:
            return [phone.number for phone in self._phones if not phone.settled]

        try:
            await self._until(lambda: not late(), "")
        except Hole:
            raise Hole(f"phones {late()} do not get settled") from None

    async def _fence(self) -> None:
        await asyncio.gather(*(phone.fence() for phone in self._phones))

    # --- measuring ------------------------------------------------------------------------

    async def _measure_own_lag(self) -> None:
        while True:
            due = time.monotonic() + 0.05
            await asyncio.sleep(0.05)
            self._own_lags.append(time.monotonic() - due)

    async def _sample(self) -> None:
        wire: Wire | None = None
        life = -1
        while True:
            await asyncio.sleep(self.plan.every)
            if wire is not None and life != self._life:
                wire.close()
                wire = None
            if wire is None:
                life = self._life
                with contextlib.suppress(OSError):
                    wire = self.server.dial.operator(str(self.server.data / "control.sock"))
            try:
                if wire is not None:
                    self._note((await wire.ok("top"))["metrics"])
            except (OSError, EOFError):
                wire = None

    def _note(self, metrics: Frame) -> None:
        assert self.server.process is not None
        now, status = time.monotonic(), Status(self.server.process.pid)
        latencies, self._book.latencies = self._book.latencies, []
        own, self._own_lags = self._own_lags, []
        sample = Sample(
            at=now - self._began,
            life=self._life,
            age=now - self._life_began,
            memory=status.memory,
            resident=status.resident,
            files=status.files - sum(metrics["pushd_connections"].values()),
            tasks=int(metrics["pushd_tasks"]),
            threads=status.threads,
            wal=int(metrics["pushd_store_wal_bytes"]),
            store=int(metrics["pushd_store_bytes"]),
            log=self._log_size() - self._log_from,
            answered=len(latencies),
            p50=quantile(latencies, 0.5),
            p99=quantile(latencies, 0.99),
            lag=self._lag.since(metrics["pushd_loop_lag_seconds"]),
            own_lag=quantile(own, 0.99),
            held=now < self._held_until,
        )
        self.samples.append(sample)
        with (self.server.folder / "samples").open("a") as file:
            file.write(json.dumps(asdict(sample)) + "\n")

    @property
    def log_a_day(self) -> float:
        """MB that the log comes to in a day, with a kill every hour."""
        last = self.samples[-1]
        return (last.log / last.at * DAY + 24 * self._herd) / 1e6

    def _log_size(self) -> int:
        return self.server.log.stat().st_size

    # --- the end --------------------------------------------------------------------------

    async def end(self) -> None:
        """Stop the server, and look at its log and its store."""
        violations = self.totals.report.violations
        began = time.monotonic()
        code = await asyncio.to_thread(self.server.stop)
        if code or time.monotonic() - began > STOP_PATIENCE:
            violations.append(f"stop: exit {code} after {time.monotonic() - began:.1f} s")
        with self.server.log.open(errors="replace") as lines:
            bad = [line for line in lines if "Traceback" in line or "level=error" in line]
        violations.extend(f"I8: {line.strip()[:300]}" for line in bad[:10])
        with contextlib.closing(sqlite3.connect(self.server.data / "pushd.db")) as db:
            whole = db.execute("PRAGMA integrity_check").fetchall()
            foreign = db.execute("PRAGMA foreign_key_check").fetchall()
        if whole != [("ok",)] or foreign:
            violations.append(f"I8: the store is not whole: {whole[:3]} {foreign[:3]}")

    def close(self) -> None:
        """End what is left."""
        self.server.dial.close()
        self.server.kill()


class Lag:
    """The lag of a loop between two looks at its histogram."""

    def __init__(self) -> None:
        self._seen: dict[float, int] = {}

    def since(self, histogram: Frame) -> float:
        """Give the p99 since the last look, as the bound of its bucket."""
        now = dict(histogram["buckets"])
        now[float("inf")] = histogram["count"]
        fresh = {bound: seen - self._seen.get(bound, 0) for bound, seen in now.items()}
        self._seen = now
        wanted = 0.99 * fresh[float("inf")]
        return min(bound for bound, seen in fresh.items() if seen >= wanted)


class Status:
    """What the system says of a process."""

    def __init__(self, process: int) -> None:
        folder = Path(f"/proc/{process}")
        rows = (line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        fields = dict(rows)
        self.memory = int(fields["RssAnon"].split()[0]) << 10
        self.resident = int(fields["VmRSS"].split()[0]) << 10
        self.threads = int(fields["Threads"])
        self.files = len(os.listdir(folder / "fd"))


def missed(verdicts: list[Verdict]) -> list[str]:
    """Tell which bars do not hold."""
    return [f"{one.name}: {one.found}, bar {one.bar}" for one in verdicts if not one.holds]


def told(verdicts: list[Verdict]) -> dict[str, str]:
    """Tell what was found, by the name of its bar."""
    return {one.name: f"{one.found} (bar {one.bar})" for one in verdicts}


@dataclass
class Outcome:
    """What a run came to."""

    soak: Soak
    verdicts: list[Verdict]

    @property
    def violations(self) -> list[str]:
        """All that is wrong, of both kinds."""
        return [*self.soak.totals.report.violations, *missed(self.verdicts)]

    @property
    def figures(self) -> dict[str, str | int | float]:
        """What was done and measured, in words."""
        totals, plan, report = self.soak.totals, self.soak.plan, self.soak.totals.report
        ends = ", ".join(f"{name} {count}" for name, count in sorted(totals.ends.items()))
        return {
            "minutes": round(plan.seconds / 60, 1),
            "devices": plan.devices,
            "confirmed messages": report.confirmed,
            "delivered": f"{report.delivered}, {report.redelivered} of them again",
            "lost acks": report.lost_acks,
            "windows judged": totals.windows,
            "connections ended": ends,
            "SIGKILLs": totals.kills,
            "files": totals.files,
            "backups": totals.backups,
            "reloads": totals.reloads,
            "held read transactions": totals.held,
            **told(self.verdicts),
            "load average": f"{os.getloadavg()[0]:.1f}",
        }

    def __str__(self) -> str:
        figures = dict(self.figures)
        for one in self.verdicts:
            del figures[one.name]
        lines = [f"{name:<24}{value}" for name, value in figures.items()]
        lines += [str(one) for one in self.verdicts]
        lines += [f"violations              {len(self.violations)}", *self.violations[:20]]
        return "\n".join(lines)


async def soak(
    plan: Plan, seed: int, folder: Path, variant: str = "", **settings: object
) -> Outcome:
    """Run as planned, and judge."""
    run, bars = Soak(folder, plan, seed, variant, **settings), plan.bars
    try:
        await run.set_up()
        try:
            await run.run()
        except (Hole, AssertionError, TimeoutError, ConnectionError) as problem:
            run.totals.report.violations.append(f"hole: {problem!r}")
        await run.end()
    finally:
        run.close()
    verdicts = judge(run.samples, plan.warm_up, plan.parts, bars) if run.samples else []
    if run.samples:
        verdicts.append(log_verdict(run.log_a_day, bars))
    return Outcome(run, verdicts)


def controls(seed: int) -> dict[str, str]:
    """Run each server with a fault for some minutes; gives what was found."""
    found = {}
    for name in VARIANTS:
        with tempfile.TemporaryDirectory() as folder:
            outcome = asyncio.run(soak(CONTROL, seed, Path(folder), name))
        first = next((one for one in outcome.violations if MEANT[name] in one), "")
        found[name] = f"caught: {first}"[:120] if first else "NOT caught"
        print(f"{name:<24}{found[name]}", flush=True)
    return found


def judge_again(plan: Plan, folder: Path) -> int:
    """Hold the samples that a run has kept against the bars of today, in its record too."""
    lines = (folder / "samples").read_text().splitlines()
    samples = [Sample(**json.loads(line)) for line in lines]
    verdicts = judge(samples, plan.warm_up, plan.parts, plan.bars)
    print(*verdicts, sep="\n")
    file = FOLDER / "soak.json"
    known = json.loads(file.read_text())
    names = tuple(f"{one.name}:" for one in verdicts)
    others = [one for one in known["violations"] if not one.startswith(names)]
    known["violations"] = others + missed(verdicts)
    known["figures"] |= told(verdicts)
    known["figures"]["bars of"] = commit()
    file.write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n")
    return 1 if known["violations"] else 0


def main() -> int:
    """Run from the command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--rate", type=float, default=30.0, help="messages a second")
    parser.add_argument("--churn", type=float, default=CHURN, help="of the devices a minute")
    parser.add_argument("--life", type=float, default=0.0, help="minutes between two kills")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--variant", choices=sorted(VARIANTS), default="")
    parser.add_argument("--controls", action="store_true", help="then run the servers with faults")
    parser.add_argument("--folder", type=Path, help="keep data, log and samples here")
    parser.add_argument("--judge", action="store_true", help="judge only the samples kept there")
    options = parser.parse_args()
    plan = Plan(
        options.minutes * 60, options.devices, options.rate, options.churn, options.life * 60
    )
    if options.judge:
        return judge_again(plan, options.folder)
    print(f"seed                    {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        outcome = asyncio.run(soak(plan, options.seed, folder, options.variant))
    print(outcome)
    found = controls(options.seed) if options.controls else {}
    if not options.variant:
        record("soak", outcome.figures, outcome.violations, found)
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
