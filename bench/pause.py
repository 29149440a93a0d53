"""`python -m bench.pause`: how long a pair waits for each other while a large store is backed up.

A store of `--megabytes` is filled by messages. Then a pair exchanges 200 messages a second: for a
while alone, and for as long as `pushctl backup` takes. The longest delay is the pause; with a
backup it may be 100 ms longer than without one. The check of the copy and the packing are part of
the backup. Exit code 1 if the pause is longer.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import click
import uvloop

from pushd.ctl.calls import Control
from pushd.ctl.top import quantile

from . import report
from .flow import percentile, send_at_rate
from .load import Sender
from .people import make_pairs
from .process import ROOT, Server, raise_file_limit, split_cores
from .workloads import Cast, Stage

RATE = 200  # messages a second
ALLOWED = 100.0  # ms that a backup may add to the longest delay
TEXT = 9000  # bytes of a message that fills the store
WINDOW = 256  # such messages on their way


class Filler(Sender):
    """Sends messages that are long."""

    def aim(self, to: str, kind: str = "1") -> None:
        """Make all further messages go to this user."""
        super().aim(to, kind)
        first, between, last = self._parts
        long = os.urandom(TEXT // 2).hex().encode()
        start, quote, rest = first.rpartition(b'"content":"')
        self._parts = (start + quote + long + rest[rest.index(b'"') :], between, last)


async def fill(stage: Stage, megabytes: int) -> None:
    """Fill the store."""
    [(sender, receiver)] = await stage.join_pairs(lambda: Filler(window=WINDOW))
    sender.go(megabytes * 1_000_000 // TEXT)
    await sender.reach(sender.quota)
    await receiver.reach(sender.quota)
    await receiver.fence()
    stage.close()


async def exchange(stage: Stage, until: Awaitable[Any]) -> dict[str, float]:
    """Have the pair exchange messages until something has ended; give what came of it."""
    [(sender, receiver)] = await stage.join_pairs(Sender)
    before = lag(stage.server)
    ending = asyncio.ensure_future(until)
    late = 0.0
    while not ending.done():
        late = max(late, await send_at_rate([(sender, receiver)], RATE, 1.0))
    await receiver.reach(sender.sent)
    await receiver.fence()
    ending.result()
    delays = sorted(receiver.delays)
    after = lag(stage.server)
    buckets = [(bound, n - m) for (bound, n), (_, m) in zip(after, before, strict=True)]
    stage.close()
    return {
        "messages": len(delays),
        "p50_ms": percentile(delays, 0.5),
        "p99_ms": percentile(delays, 0.99),
        "max_ms": percentile(delays, 1),
        "late_ms": late * 1000,
        "loop_lag_p99_ms": quantile(buckets, buckets[-1][1], 0.99) * 1000,
        "loop_lag_max_ms": max([bound for bound, n in _each(buckets) if n], default=0.0) * 1000,
    }


def _each(buckets: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """Turn counts of all up to a bound into counts of each bucket."""
    below = [0, *(count for _, count in buckets)]
    return [(bound, count - low) for (bound, count), low in zip(buckets, below, strict=False)]


def lag(server: Server) -> list[tuple[float, int]]:
    """Give the lags of the server's loop so far: bounds, and how many were within them."""
    with Control(str(server.data / "control.sock"), 60) as control:
        buckets = control.call("top", size=1)["metrics"]["pushd_loop_lag_seconds"]["buckets"]
    return [(bound, count) for bound, count in buckets]


async def back_up(server: Server, target: Path) -> None:
    """Run `pushctl backup` as an operator does."""
    words = ("backup", str(target), "--socket", str(server.data / "control.sock"))
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pushd.ctl", *words, "--timeout", "60"),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    if await run.wait():
        raise click.ClickException("the backup failed")


async def measure(folder: Path, megabytes: int, secs: float, packed: bool) -> bool:
    """Do all of it and print it; tells whether the pause is short enough."""
    server_cores, load_cores = split_cores()
    os.sched_setaffinity(0, load_cores)
    with Server(folder / "server", "uvloop", server_cores) as server:
        pairs = await make_pairs(server.address, 1)
        stage = Stage(server, Cast(pairs=pairs), secs)
        began = time.monotonic()
        await fill(stage, megabytes)
        size = (server.data / "pushd.db").stat().st_size / 1e6
        print(f"store of {size:.0f} MB in {time.monotonic() - began:.0f} s", flush=True)
        rows = {"alone": await exchange(stage, asyncio.sleep(secs))}
        target = folder / ("backup.tar.gz" if packed else "backup.tar")
        began = time.monotonic()
        rows["backup"] = await exchange(stage, back_up(server, target))
        print(f"backup of {target.stat().st_size / 1e6:.0f} MB in {time.monotonic() - began:.0f} s")
        rows["after"] = await exchange(stage, asyncio.sleep(secs))
    for name, row in rows.items():
        print(name.ljust(8), "  ".join(f"{key} {value:.1f}" for key, value in row.items()))
    added = rows["backup"]["max_ms"] - max(rows["alone"]["max_ms"], rows["after"]["max_ms"])
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    print(
        f"added to the longest delay: {added:.0f} ms (allowed {ALLOWED:.0f}); load average {load}"
    )
    return added <= ALLOWED


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--megabytes", type=click.IntRange(1, 100_000), default=1000, show_default=True)
@click.option("--secs", type=click.FloatRange(1, 600), default=20.0, show_default=True)
@click.option("--packed", is_flag=True, help="Back up into a file that ends in gz.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, resolve_path=True, path_type=Path),
    default=ROOT / "build",
    help="Where to put the data for the time being; a real disk.  [default: build]",
)
def main(megabytes: int, secs: float, packed: bool, folder: Path) -> None:
    """Measure the pause that a backup makes."""
    if report.filesystem(folder) in ("tmpfs", "ramfs"):
        raise click.BadParameter(f"{folder} is in memory, which syncs at no cost")
    folder.mkdir(parents=True, exist_ok=True)
    raise_file_limit()
    with tempfile.TemporaryDirectory(prefix="pause-", dir=folder) as scratch:
        good = uvloop.run(measure(Path(scratch), megabytes, secs, packed))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
