"""What changes from second to second: two answers of the server compared, and shown as text.

`compare` is pure: it takes two replies to the row `top` and gives a `View`. Both ways to show one,
the plain one here and the screen, take it from there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..log import escape
from .table import GAP, Fields, Listing, aligned, duration, size

# Rates, by what they are called: the counters that they are of.
RATES = {
    "accepted": "pushd_messages_accepted_total",
    "delivered": "pushd_messages_delivered_total",
    "acked": "pushd_messages_acked_total",
    "frames": "pushd_frames_total",
    "commands": "pushd_commands_total",
    "refusals": "pushd_refusals_total",
    "commits": "pushd_commits_total",
    "connects": "pushd_connections_accepted_total",
    "bytesIn": "pushd_received_bytes_total",
    "bytesOut": "pushd_sent_bytes_total",
    "cpu": "pushd_cpu_seconds_total",
}
# Latencies, by what they are called: the histograms that they are of.
LATENCIES = {
    "sync": "pushd_sync_seconds",
    "commit": "pushd_commit_seconds",
    "loop": "pushd_loop_lag_seconds",
}
# Of the commands and refusals that there were, so many are named.
NAMED = 8
DEVICE = "userId deviceId address seconds waiting change bytes"
QUEUE = "userId deviceId waiting change"


@dataclass(slots=True)
class View:
    """What happened between two answers, and how it is now; rates are per second."""

    seconds: float  # between the two
    restarted: bool  # the server is another one than before: there are no rates
    now: Fields  # the metrics that are no counters
    rates: dict[str, float]
    latencies: dict[str, tuple[float, float]]  # the median and the 99th percentile, in seconds
    commands: list[tuple[str, float]]  # the most frequent ones with their rates
    refusals: list[tuple[str, float]]
    slowest: list[Fields]  # connected devices that are most behind
    queues: list[Fields]  # the longest queues

    def fields(self) -> Fields:
        """Give it as programs read it."""
        return asdict(self)


def compare(before: Fields, after: Fields) -> View:
    """Compare two replies to `top`, the older one first."""
    old, new = before["metrics"], after["metrics"]
    seconds = new["time"] - old["time"]
    # A server's uptime rises as the time does; the clock of the wall may jump.
    passed = new["pushd_uptime_seconds"] - old["pushd_uptime_seconds"]
    restarted = passed <= 0
    if restarted:
        old, passed = {}, new["pushd_uptime_seconds"]
    return View(
        seconds=round(seconds if restarted else passed, 3),
        restarted=restarted,
        now={key: value for key, value in new.items() if not _counts(key, value)},
        rates={name: _rate(old, new, key, passed) for name, key in RATES.items()},
        latencies={name: _latency(old, new, key) for name, key in LATENCIES.items()},
        commands=_most(old, new, "pushd_commands_total", passed),
        refusals=_most(old, new, "pushd_refusals_total", passed),
        slowest=_changed(before["slowest"], after["slowest"]),
        queues=_changed(before["queues"], after["queues"]),
    )


def _counts(key: str, value: Any) -> bool:
    return key.endswith("_total") or (isinstance(value, dict) and "buckets" in value)


def _rate(old: Fields, new: Fields, key: str, seconds: float) -> float:
    return (_sum(new.get(key)) - _sum(old.get(key))) / seconds if seconds > 0 else 0.0


def _sum(value: Any) -> float:
    return float(sum(value.values()) if isinstance(value, dict) else value or 0)


def _latency(old: Fields, new: Fields, key: str) -> tuple[float, float]:
    """Give the median and the 99th percentile of what came in between."""
    found = new.get(key, {"count": 0, "buckets": []})
    earlier = old.get(key, {"count": 0, "buckets": [(bound, 0) for bound, _ in found["buckets"]]})
    buckets = [
        (bound, seen - was)
        for (bound, seen), (_, was) in zip(found["buckets"], earlier["buckets"], strict=True)
    ]
    count = found["count"] - earlier["count"]
    return quantile(buckets, count, 0.5), quantile(buckets, count, 0.99)


def quantile(buckets: Sequence[tuple[float, int]], count: int, part: float) -> float:
    """Estimate a quantile as Prometheus does: evenly spread within a bucket.

    `buckets` are bounds with how many values were within them; what is beyond the last bound
    counts as that. 0 without any value.
    """
    wanted, low, below = part * count, 0.0, 0
    if not count:
        return 0.0
    for bound, seen in buckets:
        if seen >= wanted and seen > below:
            return low + (bound - low) * (wanted - below) / (seen - below)
        low, below = bound, seen
    return low


def _most(old: Fields, new: Fields, key: str, seconds: float) -> list[tuple[str, float]]:
    """Give the most frequent of what happened, with their rates."""
    earlier: Mapping[str, float] = old.get(key, {})
    rates = [
        (name, (count - earlier.get(name, 0)) / seconds)
        for name, count in new.get(key, {}).items()
        if seconds > 0 and count > earlier.get(name, 0)
    ]
    return sorted(rates, key=lambda one: (-one[1], one[0]))[:NAMED]


def _changed(before: Sequence[Fields], after: Sequence[Fields]) -> list[Fields]:
    """Give the newer rows, each with how many more wait than before, if that is known."""
    known = {(row["userId"], row["deviceId"]): row["waiting"] for row in before}
    return [
        {**row, "change": _signed(row["waiting"] - known[key]) if key in known else ""}
        for row in after
        for key in [(row["userId"], row["deviceId"])]
    ]


def _signed(change: int) -> str:
    return f"{change:+d}" if change else "0"


# As text


def heading(view: View) -> str:
    """Give one line about the server."""
    now = view.now
    build = now["pushd_build_info"]
    state = "ready" if now["pushd_ready"] else "NOT READY"
    if now["pushd_disk_full"]:
        state = "DISK FULL"
    words = [
        f"pushd {build['version']}",
        f"up {duration(int(now['pushd_uptime_seconds']))}",
        state,
        f"{sum(now['pushd_connections'].values()):.0f} connections",
        f"{now['pushd_devices_online']} online",
        f"{now['pushd_queue_messages']} waiting",
        f"{size(now['pushd_memory_bytes'])} memory",
        f"{100 * view.rates['cpu']:.0f}% cpu",
    ]
    if view.restarted:
        words.append("RESTARTED")
    return escape(GAP.join(words))


def figures(view: View) -> str:
    """Give rates and latencies in two lines each: titles, and values."""
    rates = view.rates
    columns = {
        **{f"{name}/s": f"{rates[name]:.1f}" for name in RATES if name not in _OTHERWISE},
        "in/s": size(int(rates["bytesIn"])),
        "out/s": size(int(rates["bytesOut"])),
    }
    times = {
        f"{name} {part}": milliseconds(value)
        for name, pair in view.latencies.items()
        for part, value in zip(("p50", "p99"), pair, strict=True)
    }
    now = view.now
    times |= {
        "loop max": milliseconds(now["pushd_loop_lag_max_seconds"]),
        "writer": str(now["pushd_writer_waiting"]),
        "oldest": duration(int(now["pushd_queue_oldest_seconds"]["online"])),
        "log": size(now["pushd_store_wal_bytes"]),
        "free": size(now["pushd_disk_free_bytes"]),
    }
    return "\n".join(_under_each_other(each) for each in (columns, times))


_OTHERWISE = ("bytesIn", "bytesOut", "cpu")


def _under_each_other(values: Mapping[str, str]) -> str:
    return aligned([[name.upper() for name in values], list(values.values())], [True] * len(values))


def milliseconds(seconds: float) -> str:
    """Write a short time: 0.25 ms, 12 ms."""
    value = seconds * 1000
    return f"{value:.2f} ms" if value < 10 else f"{value:.0f} ms"


def listings(view: View) -> list[tuple[str, Listing]]:
    """Give the tables with their titles; those that are empty are left out."""
    shows = {"seconds": duration, "bytes": size}
    tables = [
        ("devices behind", Listing(view.slowest, DEVICE, shows)),
        ("longest queues", Listing(view.queues, QUEUE)),
    ]
    return [(name, table) for name, table in tables if table.entries]


def text(view: View) -> str:
    """Show all of it."""
    parts = [heading(view), figures(view)]
    for name, found in (("commands", view.commands), ("refusals", view.refusals)):
        if found:
            told = ", ".join(f"{what} {rate:.1f}/s" for what, rate in found)
            parts.append(f"{name}: {escape(told)}")
    parts += [f"{name}:\n{table.text()}" for name, table in listings(view)]
    return "\n\n".join(parts)
