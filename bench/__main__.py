"""`python -m bench [W1 W2 ...]`: run workloads, print a table, compare it with the record."""

import asyncio
import gc
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
import uvloop

from . import report
from .load import LoadFailed
from .process import ROOT, TREES, Server, ServerFailed, busy_seconds, raise_file_limit, split_cores
from .workloads import WORKLOADS, Figures, Meter, Stage, Workload

# How long anything may take beyond its own length, in seconds; 5,000 accounts take longest.
PATIENCE = 180.0

_Result = TypeVar("_Result")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, type=click.Choice([*WORKLOADS]), metavar="[W1 W2 ...]")
@click.option("--runs", type=click.IntRange(1, 20), default=3, show_default=True)
@click.option(
    "--secs", type=click.FloatRange(0.5, 60), default=5.0, show_default=True, help="Of one run."
)
@click.option("--loop", type=click.Choice(["uvloop", "asyncio"]), default="uvloop")
@click.option(
    "--build",
    type=click.Choice([*TREES]),
    default="source",
    show_default=True,
    help="What to run: the sources, or what `make compiled` made of them.",
)
@click.option("--json", "json_file", type=click.Path(dir_okay=False), help="Write all runs there.")
@click.option("--record", is_flag=True, help="Compare with these figures from now on.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, resolve_path=True, path_type=Path),
    default=ROOT / "build",
    help="Where to put the data for the time being; a real disk.  [default: build]",
)
def main(
    names: tuple[str, ...],
    runs: int,
    secs: float,
    loop: str,
    build: str,
    json_file: str | None,
    record: bool,
    folder: Path,
) -> None:
    """Measure pushd on this machine; without names all workloads."""
    if report.filesystem(folder) in ("tmpfs", "ramfs"):
        raise click.BadParameter(f"{folder} is in memory, which syncs at no cost")
    if not TREES[build].exists():
        raise click.UsageError(f"there is no {TREES[build]} yet: `make compiled` makes it")
    if record and build != "source":
        raise click.UsageError("what is recorded is the sources' figures")
    folder.mkdir(parents=True, exist_ok=True)
    raise_file_limit()
    server_cores, load_cores = split_cores()
    os.sched_setaffinity(0, load_cores)
    # As an exception, so that the server does not outlive us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # A pause of our own collector would be taken for one of the server's.
    gc.disable()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=folder) as scratch:
        cores = f"server on core {server_cores[0]}, load on core {load_cores[0]}"
        where = report.facts(Path(scratch), build=build, loop=loop, secs=secs, cores=cores)
        bench = Bench(Path(scratch), loop, server_cores, runs, secs, tree=TREES[build])
        results = bench.measure([*dict.fromkeys(names)] or [*WORKLOADS])
    _print(results, where, loop)
    if json_file:
        rows = {name: report.rounded(figures) for name, figures in results.items()}
        Path(json_file).write_text(json.dumps({"where": where, "workloads": rows}, indent=1) + "\n")
    if record:
        report.record(loop, where, results)
    sys.exit(1 if bench.failed else 0)


class Bench:
    """Runs workloads one after another, each on a server of its own."""

    def __init__(
        self,
        scratch: Path,
        loop: str,
        cores: list[int],
        runs: int,
        secs: float,
        *,
        tree: Path = ROOT,
    ) -> None:
        self.failed = False  # whether any workload has
        self._tree = tree
        self._scratch = scratch
        self._loop = loop
        self._cores = cores
        self._runs = runs
        self._secs = secs

    def measure(self, names: list[str]) -> dict[str, report.Runs]:
        """Return the figures of all runs; a workload that fails is told of and left out."""
        results = {}
        for name in names:
            _say(f"{name}: {WORKLOADS[name].title}")
            try:
                results[name] = self._measure(name, WORKLOADS[name])
            except (LoadFailed, ServerFailed, OSError, TimeoutError) as problem:
                self.failed = True
                _say(f"{name} FAILED: {str(problem) or 'it took too long'}")
        return results

    def _measure(self, name: str, workload: Workload) -> list[Figures]:
        folder = self._scratch / name
        try:
            options = {"tree": self._tree, **workload.settings}
            with Server(folder, self._loop, self._cores, **options) as server:
                try:
                    return list(self._play_all(workload, server))
                except LoadFailed:
                    _say(server.log_end())
                    raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _play_all(self, workload: Workload, server: Server) -> Iterator[Figures]:
        cast = self._await(workload.prepare(server.address))
        server.stop()
        server.save_data()
        for number in range(self._runs):
            server.restore_data()
            server.start()
            stage = Stage(server, cast, self._secs)
            figures = self._await(_play(workload, stage))
            server.stop()
            _say(f"  {number + 1}/{self._runs} {_brief(figures)}")
            yield figures

    def _await(self, job: Coroutine[Any, Any, _Result]) -> _Result:
        async def bounded() -> _Result:
            async with asyncio.timeout(self._secs + PATIENCE):
                return await job

        gc.collect()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(bounded())


async def _play(workload: Workload, stage: Stage) -> Figures:
    """Do one run, and see what else kept the machine busy meanwhile."""
    meter, busy = Meter(stage.server), busy_seconds()
    try:
        figures = await workload.run(stage)
        ours = sum(meter.shares().values())
        others = 100 * (busy_seconds() - busy) / meter.seconds - ours
        return {**figures, "others_cpu": max(0.0, others)}
    finally:
        stage.close()


def _print(results: dict[str, report.Runs], where: report.Facts, loop: str) -> None:
    recorded = report.load_recorded(loop)
    click.echo(f"\n{report.header(where)}\n")
    if results:
        click.echo(report.table(results, recorded))
        click.echo(f"\n{report.summary(results, recorded, where)}")


def _brief(figures: Figures) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())


def _say(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    main(prog_name="python -m bench")
