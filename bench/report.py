"""What was measured, where, and whether that differs from what was recorded.

Two results differ by more than the noise when their medians differ by more than the spreads of
both together (a spread is the largest run minus the smallest), and by 5 % at least. Fewer than
three runs tell nothing about the noise, so nothing is said then.

`recorded.json` holds for each loop and workload the runs, and where they were made.
"""

import json
import os
import platform
import sqlite3
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from .process import ROOT

RECORDED = Path(__file__).with_name("recorded.json")

Runs = list[dict[str, float]]
Facts = dict[str, Any]

LEAST_CHANGE = 0.05
LEAST_RUNS = 3
DISTURBED = 15  # per cent of a core that others use before it is said
SYNCS = 200  # appends of 4 KiB, to see what the disk takes for one


class Measure(NamedTuple):
    """What a figure is called, and whether more of it is better (1), worse (-1) or neither."""

    label: str
    better: int


MEASURES = {
    "messages_s": Measure("messages/s", 1),
    "deliveries_s": Measure("durable deliveries/s", 1),
    "seconds": Measure("seconds to the last ack", -1),
    "filling_s": Measure("messages/s into the queue", 1),
    "restarts_s": Measure("restarts/s", 1),
    "p50_ms": Measure("ms to the receiver, p50", -1),
    "p99_ms": Measure("ms to the receiver, p99", -1),
    "max_ms": Measure("ms to the receiver, max", -1),
    "confirm_p50_ms": Measure("ms to the confirmation, p50", -1),
    "confirm_p99_ms": Measure("ms to the confirmation, p99", -1),
    "group_p50_ms": Measure("ms to the confirmation in the group, p50", -1),
    "group_p99_ms": Measure("ms to the confirmation in the group, p99", -1),
    "group_first_ms": Measure("ms to the confirmation of the first one after a start", -1),
    "group_10_ms": Measure("ms to the confirmation, 10 members, p50", -1),
    "group_100_ms": Measure("ms to the confirmation, 100 members, p50", -1),
    "group_1000_ms": Measure("ms to the confirmation, 1,000 members, p50", -1),
    "group_5000_ms": Measure("ms to the confirmation, 5,000 members, p50", -1),
    "upload_s": Measure("seconds of the upload", -1),
    "late_ms": Measure("ms the load itself was late, max", 0),
    "page_ms": Measure("ms a page of chats, mean", -1),
    "page_max_ms": Measure("ms a page of chats, max", -1),
    "kib_each": Measure("KiB a connection", -1),
    "base_mib": Measure("MiB without connections", -1),
    "idle_cpu": Measure("server, % of a core, idle", -1),
    "quiet_p99_ms": Measure("ms without load, p99", 0),
    "quiet_max_ms": Measure("ms without load, max", 0),
    "logins_s": Measure("logins/s", 1),
    "logins_p99_ms": Measure("ms beside logins, p99", -1),
    "logins_max_ms": Measure("ms beside logins, max", -1),
    "load_p99_ms": Measure("ms beside messages, p99", -1),
    "load_max_ms": Measure("ms beside messages, max", -1),
    "cpu_us": Measure("server, µs of CPU each", -1),
    "server_cpu": Measure("server, % of a core", 0),
    "load_cpu": Measure("load, % of a core", 0),
    "others_cpu": Measure("all others, % of a core", 0),
}


# Where


def facts(folder: Path, *, build: str = "source", loop: str, secs: float, cores: str) -> Facts:
    """Tell what was measured and on what; `folder` is on the disk that counts."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "pushd": version("pushd"),
        "commit": _commit(),
        "build": build,
        "loop": f"uvloop {version('uvloop')}" if loop == "uvloop" else loop,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "machine": f"{os.cpu_count()} cores, {_processor()}",
        "cores": cores,
        "system": f"{platform.system()} {platform.release()}",
        "disk": filesystem(folder),
        "fdatasync_ms": _fdatasync(folder),
        "load_average": round(os.getloadavg()[0], 2),
        "secs": secs,
    }


def filesystem(folder: Path) -> str:
    """Name the kind of file system a folder is on."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    path = folder.resolve()
    # The deepest mount point counts, and of those at one place the last.
    found = [(len(at), kind) for at, kind in mounts if path.is_relative_to(at)]
    return max(reversed(found), key=lambda one: one[0])[1] if found else "unknown"


def _commit() -> str:
    """Name the commit, with a plus sign when the tree differs from it."""
    # Without the lock, or a look at the tree could disturb a commit that is being made.
    git = ["git", "--no-optional-locks", "-C", str(ROOT)]
    run = partial(subprocess.check_output, text=True, stderr=subprocess.DEVNULL)
    try:
        head = run([*git, "rev-parse", "--short", "HEAD"])
        dirty = run([*git, "status", "--porcelain", "pushd"])
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.strip() + ("+" if dirty else "")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _fdatasync(folder: Path) -> float:
    """Return the median milliseconds of a synced append."""
    path = folder / "sync"
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(SYNCS):
            begin = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - begin)
    path.unlink()
    return round(statistics.median(times) * 1000, 3)


# The record


def load_recorded(loop: str) -> dict[str, Any]:
    """Return the recorded workloads of a loop, by name; none if nothing is recorded."""
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    workloads: dict[str, Any] = recorded.get(loop, {})
    return workloads


def record(loop: str, where: Facts, results: Mapping[str, Runs]) -> None:
    """Put these results in the place of the recorded ones; other workloads stay."""
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    rows = {name: {"where": where, "runs": rounded(runs)} for name, runs in results.items()}
    recorded.setdefault(loop, {}).update(rows)
    RECORDED.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")


def rounded(runs: Runs) -> Runs:
    """Cut figures to the four digits that mean something."""
    return [{name: float(f"{value:.4g}") for name, value in run.items()} for run in runs]


# The table


def header(where: Facts) -> str:
    """Write the facts as two lines."""
    return (
        f"pushd {where['pushd']} ({where['build']}) at {where['commit']}, {where['loop']}, "
        f"Python {where['python']}, "
        f"SQLite {where['sqlite']}, {where['date']}\n"
        f"{where['machine']}, {where['system']}, {where['disk']} with fdatasync p50 "
        f"{where['fdatasync_ms']} ms; {where['cores']}; load average {where['load_average']}"
    )


def table(results: Mapping[str, Runs], recorded: Mapping[str, Any]) -> str:
    """Write one Markdown table: median (smallest–largest), and the change since the record."""
    rows = [("workload", "measure", "result", "recorded", "change")]
    for name, runs in results.items():
        old_runs = recorded.get(name, {}).get("runs", [])
        for key in runs[0]:
            new, old = _values(runs, key), _values(old_runs, key)
            cells = (_cell(new), _cell(old), change(key, new, old))
            rows.append((name, MEASURES[key].label, *cells))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, _line(["-" * width for width in widths], widths))
    return "\n".join(lines)


def summary(results: Mapping[str, Runs], recorded: Mapping[str, Any], where: Facts) -> str:
    """Say in words what has changed since the record by more than the noise."""
    others = max(max(_values(runs, "others_cpu")) for runs in results.values())
    lines = []
    if others > DISTURBED:
        lines.append(f"Others used up to {others:.0f} % of a core: repeat it on a quiet machine.")
    compared = [name for name in results if name in recorded]
    if not compared:
        return "\n".join([*lines, "Nothing is recorded to compare with (--record does that)."])
    commits = ", ".join(sorted({recorded[name]["where"]["commit"] for name in compared}))
    lines.append(f"Changed since the record ({commits}) by more than the noise:")
    lines += list(_changes(results, recorded)) or ["  nothing"]
    for fact in ("machine", "system", "disk", "python", "sqlite", "cores", "secs"):
        old = {str(recorded[name]["where"][fact]) for name in compared} - {str(where[fact])}
        if old:
            lines.append(f"But the record is of another {fact}: {', '.join(sorted(old))}.")
    return "\n".join(lines)


def change(key: str, new: Sequence[float], old: Sequence[float]) -> str:
    """Say how a measure changed; empty when that is noise or cannot be told."""
    better = MEASURES[key].better
    if min(len(new), len(old)) < LEAST_RUNS or not better:
        return ""
    before, after = statistics.median(old), statistics.median(new)
    spreads = max(old) - min(old) + max(new) - min(new)
    if abs(after - before) <= max(spreads, LEAST_CHANGE * abs(before)):
        return ""
    verdict = "better" if (after - before) * better > 0 else "worse"
    by = f"{(after / before - 1) * 100:+.0f} % " if before else ""
    return by + verdict


def _changes(results: Mapping[str, Runs], recorded: Mapping[str, Any]) -> Iterator[str]:
    for name, runs in results.items():
        old_runs = recorded.get(name, {}).get("runs", [])
        for key in runs[0]:
            new, old = _values(runs, key), _values(old_runs, key)
            verdict = change(key, new, old)
            if verdict:
                label = MEASURES[key].label
                yield f"  {name} {label}: {_cell(old)} → {_cell(new)}, {verdict}"


def _values(runs: Runs, key: str) -> list[float]:
    return [run[key] for run in runs if key in run]


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    middle = _number(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({_number(min(values))}–{_number(max(values))})"


def _number(value: float) -> str:
    """Write three digits, or all those before the point."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return f"| {' | '.join(padded)} |"
