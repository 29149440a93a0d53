"""`python -m bench.peers [redis nats ...]`: measure peers and pushd in turns, print one table."""

import asyncio
import gc
import json
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click
import uvloop

from .. import report
from ..__main__ import PATIENCE, Bench
from ..load import LoadFailed
from ..process import ROOT, TREES, ServerFailed, raise_file_limit, split_cores
from ..workloads import Figures
from .servers import KINDS, PeerServer
from .workloads import USERS, WORKLOADS

# The one figure of each workload that the table compares, and what is better.
SHOWN = {
    "W1": ("messages_s", "durable one-to-one, messages/s"),
    "W2": ("p50_ms", "latency at 1,000/s, p50 ms"),
    "W2 ": ("p99_ms", "latency at 1,000/s, p99 ms"),
    "W3": ("kib_each", "an idle connection, KiB"),
    "W4": ("messages_s", "replay of 10,000 waiting, messages/s"),
    "W5": ("deliveries_s", "a group of 500, deliveries/s"),
    "W6": ("restarts_s", "ready connections/s"),
}

_Result = TypeVar("_Result")
Results = dict[str, dict[str, list[Figures]]]  # by workload and server


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, type=click.Choice([*KINDS]), metavar="[redis nats ...]")
@click.option("--workload", "workloads", multiple=True, type=click.Choice([*WORKLOADS]))
@click.option("--runs", type=click.IntRange(1, 20), default=3, show_default=True)
@click.option("--secs", type=click.FloatRange(0.5, 60), default=5.0, show_default=True)
@click.option("--json", "json_file", type=click.Path(dir_okay=False), help="Write all runs there.")
def main(
    names: tuple[str, ...],
    workloads: tuple[str, ...],
    runs: int,
    secs: float,
    json_file: str | None,
) -> None:
    """Measure pushd and its peers side by side; without names all that are installed."""
    wanted = [*names] or [name for name, kind in KINDS.items() if kind.installed]
    for name, kind in KINDS.items():
        if not kind.installed and (name in names or not names):
            click.echo(f"{name} is not installed: apt-get install {' '.join(kind.packages)}")
    if any(not KINDS[name].installed for name in names):
        sys.exit(2)
    raise_file_limit()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    gc.disable()
    folder = ROOT / "build"
    folder.mkdir(exist_ok=True)
    server_cores, load_cores = split_cores()
    os.sched_setaffinity(0, load_cores)
    # The compiled build too, where `make compiled` has made it.
    builds = {"pushd": TREES["source"], "compiled": TREES["compiled"]}
    builds = {build: tree for build, tree in builds.items() if tree.exists()}
    results: Results = {name: {} for name in [*workloads] or [*WORKLOADS]}
    with tempfile.TemporaryDirectory(prefix="peers-", dir=folder) as scratch:
        cores = f"server on core {server_cores[0]}, load on core {load_cores[0]}"
        where = report.facts(Path(scratch), loop="uvloop", secs=secs, cores=cores)
        for workload, found in results.items():
            # In turns, so that a machine that changes its speed changes it for all.
            for number in range(runs):
                for build, tree in builds.items():
                    bench = Bench(Path(scratch), "uvloop", server_cores, 1, secs, tree=tree)
                    measured = bench.measure([workload]).get(workload, [])
                    found.setdefault(build, []).extend(measured)
                for name in wanted:
                    figures = _measure(name, workload, Path(scratch), server_cores, secs)
                    found.setdefault(name, []).extend(figures)
                click.echo(f"{workload} {number + 1}/{runs}", err=True)
    click.echo(f"\n{report.header(where)}\n\n{table(results)}")
    if json_file:
        Path(json_file).write_text(json.dumps({"where": where, "results": results}, indent=1))


def _measure(
    name: str, workload: str, scratch: Path, cores: list[int], secs: float
) -> list[Figures]:
    kind = KINDS[name]
    peer = kind.peer()
    try:
        with PeerServer(kind, scratch / name, cores, peer.port) as server:
            _run(peer.prepare(_users(workload)), secs)
            figures = _run(WORKLOADS[workload](peer, server, secs), secs)
    except (LoadFailed, ServerFailed, OSError, TimeoutError) as problem:
        click.echo(
            f"{name} {workload} FAILED: {str(problem)[:500] or 'it took too long'}", err=True
        )
        return []
    click.echo(
        f"  {name} " + ", ".join(f"{key} {value:.4g}" for key, value in figures.items()), err=True
    )
    return [figures]


def _users(workload: str) -> range:
    """Give the accounts that a workload needs; 5,000 of them take XMPP servers minutes."""
    return USERS if workload == "W3" else USERS[:1500]


def _run(job: Coroutine[Any, Any, _Result], secs: float) -> _Result:
    async def bounded() -> _Result:
        async with asyncio.timeout(secs + 2 * PATIENCE):
            return await job

    gc.collect()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(bounded())


def table(results: Results) -> str:
    """Write medians, with what each is of pushd's."""
    servers = ["pushd", *dict.fromkeys(n for row in results.values() for n in row if n != "pushd")]
    lines = [
        "| | " + " | ".join(servers) + " |",
        "| --- |" + " --- |" * len(servers),
    ]
    for key, (figure, title) in SHOWN.items():
        workload = key.strip()
        if workload not in results:
            continue
        ours = _median(results[workload].get("pushd", []), figure)
        cells = []
        for server in servers:
            value = _median(results[workload].get(server, []), figure)
            if value is None:
                cells.append("–")
            elif server == "pushd" or not ours:
                cells.append(_short(value))
            else:
                cells.append(f"{_short(value)} (× {value / ours:.2g})")
        lines.append(f"| {workload} {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _median(runs: list[Figures], figure: str) -> float | None:
    values = [run[figure] for run in runs if figure in run]
    return statistics.median(values) if values else None


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main(prog_name="python -m bench.peers")
