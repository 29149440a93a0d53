"""What is measured of a server in a long run, and whether that is good enough; pure.

A life is the time between a start and the next kill. Memory and the like begin anew with each
life, so growth is one slope for all lives, each with a level of its own: least squares over what
comes after the warm-up of each.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

HOUR = 3600.0
DAY = 24 * HOUR
MIB = 1 << 20


@dataclass(frozen=True)
class Sample:
    """The server at one moment; latencies and lags are of the seconds since the one before."""

    at: float  # seconds since the begin of the run
    life: int
    age: float  # seconds since the start of the life
    memory: int  # bytes of its own, without mapped files
    resident: int  # bytes in all
    files: int  # descriptors that are no connections
    tasks: int
    threads: int
    wal: int  # bytes
    store: int  # bytes
    log: int  # bytes written so far, judging and kills left out
    answered: int  # lists
    p50: float  # seconds from sending a list to its "ok"
    p99: float
    lag: float  # of the server's loop, p99 in seconds
    own_lag: float  # of the tool's own loop, p99 in seconds
    held: bool  # somebody holds a read transaction, or did a minute ago


@dataclass(frozen=True)
class Bars:
    """What must hold."""

    memory: float = 1.0  # MiB an hour
    noise: float = 0.5  # MiB in the longest life: less growth says nothing
    files: float = 1.0  # in any life, from one half to the other
    tasks: float = 1.0  # likewise
    threads: float = 3.0  # likewise; pools grow to their size when they are first needed
    p99: float = 1.1  # of the last part, in parts of the second one
    p99_floor: float = 0.001  # seconds: a smaller difference says nothing
    wal: int = 64 << 20  # bytes
    log: float = 10.0  # MB a day
    lag: float = 0.1  # seconds


@dataclass(frozen=True)
class Verdict:
    """One bar: what was found, and whether it holds."""

    name: str
    found: str
    bar: str
    holds: bool

    def __str__(self) -> str:
        outcome = "" if self.holds else "  FAILED"
        return f"{self.name:<24}{self.found} (bar {self.bar}){outcome}"


def quantile(values: Sequence[float], part: float) -> float:
    """Give the value below which this part of the values lies; 0 without any."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


def slope(samples: Sequence[Sample], read: Callable[[Sample], float]) -> float:
    """Give the growth an hour by least squares, with a level of its own for each life."""
    top = bottom = 0.0
    for life in {one.life for one in samples}:
        mine = [one for one in samples if one.life == life]
        middle, level = (
            statistics.fmean(one.at for one in mine),
            statistics.fmean(map(read, mine)),
        )
        top += sum((one.at - middle) * (read(one) - level) for one in mine)
        bottom += sum((one.at - middle) ** 2 for one in mine)
    return top / bottom * HOUR if bottom else 0.0


def longest(samples: Sequence[Sample]) -> float:
    """Give the seconds that the longest life was watched."""
    spans = [0.0]
    for life in {one.life for one in samples}:
        times = [one.at for one in samples if one.life == life]
        spans.append(max(times) - min(times))
    return max(spans)


def part(samples: Sequence[Sample], number: int, parts: int) -> list[Sample]:
    """Give one of the equal parts of a run, counted from 0."""
    end = max(one.at for one in samples) + 1e-6
    low, high = end * number / parts, end * (number + 1) / parts
    return [one for one in samples if low <= one.at < high]


def judge(samples: Sequence[Sample], warm_up: float, parts: int, bars: Bars) -> list[Verdict]:
    """Hold what was measured against the bars."""
    warm = [one for one in samples if one.age >= warm_up]
    if len(warm) < 3:
        return [Verdict("samples", f"{len(warm)} after warming up", "3", False)]
    return [
        _memory(warm, bars),
        _flat("descriptors", warm, lambda one: one.files, bars.files),
        _flat("tasks", warm, lambda one: one.tasks, bars.tasks),
        _flat("threads", warm, lambda one: one.threads, bars.threads),
        _wal(samples, bars),
        _latency(samples, parts, bars),
        _lag(warm, bars),
    ]


def _memory(warm: Sequence[Sample], bars: Bars) -> Verdict:
    rate = slope(warm, lambda one: one.memory / MIB)
    grown = rate * longest(warm) / HOUR
    holds = rate < bars.memory or grown < bars.noise
    found = f"{rate:+.2f} MiB/h, {grown:+.2f} MiB"
    bar = f"< {bars.memory} MiB/h or {bars.noise} MiB"
    return Verdict("memory", found, bar, holds)


def _flat(
    name: str, warm: Sequence[Sample], read: Callable[[Sample], float], bar: float
) -> Verdict:
    """Compare the halves of each life by their medians: what works at a moment says nothing."""
    grown = 0.0
    for life in {one.life for one in warm}:
        mine = [read(one) for one in warm if one.life == life]
        half = len(mine) // 2
        if half:
            grown = max(grown, statistics.median(mine[half:]) - statistics.median(mine[:half]))
    last = statistics.median(map(read, warm[-5:]))
    return Verdict(name, f"{grown:+g} to {last:.0f}", f"< +{bar:g}", grown < bar)


def _wal(samples: Sequence[Sample], bars: Bars) -> Verdict:
    free = max((one.wal for one in samples if not one.held), default=0)
    held = max((one.wal for one in samples if one.held), default=0)
    found = f"{free / MIB:.1f} MiB, held {held / MIB:.0f} MiB"
    return Verdict("write-ahead log", found, f"<= {bars.wal / MIB:g} MiB", free <= bars.wal)


def _latency(samples: Sequence[Sample], parts: int, bars: Bars) -> Verdict:
    """Compare the typical p99 of two parts; what the tool's own timers were later is not counted.

    Each part's is the median of its intervals', so that one backup or kill is not all that counts.
    """
    busy = [one for one in samples if one.answered and not one.held]

    def typical(number: int) -> tuple[float, float]:
        mine = part(busy, number, parts) or busy
        return (
            statistics.median(one.p99 for one in mine),
            statistics.median(one.own_lag for one in mine),
        )

    (second, lag), (last, last_lag) = typical(1), typical(parts - 1)
    excuse = max(0.0, last_lag - lag)
    holds = last - excuse <= max(second * bars.p99, second + bars.p99_floor)
    found = f"{second * 1000:.1f} then {last * 1000:.1f} ms"
    return Verdict("p99 of confirmations", found, f"<= {bars.p99} times", holds)


def _lag(warm: Sequence[Sample], bars: Bars) -> Verdict:
    # What the tool's own timers were later is the machine's doing.
    found = statistics.median(max(0.0, one.lag - one.own_lag) for one in warm)
    return Verdict(
        "loop lag p99", f"{found * 1000:.1f} ms", f"<= {bars.lag * 1000:g} ms", found <= bars.lag
    )


def log_verdict(rate: float, bars: Bars) -> Verdict:
    """Judge how many MB a day the log comes to."""
    return Verdict("log", f"{rate:.2f} MB/day", f"<= {bars.log:g} MB/day", rate <= bars.log)
