"""Kill the server at each write, sync and change of a folder of a fixed script.

    python -m tests.disk.killpoints                # all points; --every 5 for a fifth of them

The n-th call of a kind is replaced by a SIGKILL, for each kind and n: during a first start in an
empty folder, and while the script of `tests.disk.script` runs on a store that was made before.
Then the store is recovered, in this process or by a real server, and must be sound and know all
that was confirmed. Exit code 1 if it does not.

The control kills nothing but has the same judges look at a store from which a confirmed message
was removed.
"""

import argparse
import sqlite3
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

from tests.disk.attempts import Outcome, attempt, bench, count_calls
from tests.disk.traced import obstacle
from tests.model.record import conclude

CALLS = ("pwrite64", "fdatasync", "ftruncate", "fsync", "rename", "unlink", "mkdir", "link")
# So small that the log is written back several times within the script.
SETTINGS = {"store_checkpoint_pages": 30}
# Every so many points a real server is started afterwards.
SERVED = 5


def points(counts: dict[str, int], every: int) -> list[str]:
    """Give the faults: a SIGKILL in the place of each call, or of a part of them."""
    whole = [(call, number + 1) for call in CALLS for number in range(counts.get(call, 0))]
    return [f"{call}:signal=SIGKILL:when={number}" for call, number in whole[::every]]


def killed(source: Path | None, scratch: Path, every: int, at_once: int) -> list[Outcome]:
    """Kill at all points, on a store or in an empty folder."""
    counts = count_calls(source, scratch, **SETTINGS)
    faults = points(counts, every)
    one = partial(_one, source, scratch)
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(one, range(len(faults)), faults))


def _one(source: Path | None, scratch: Path, number: int, fault: str) -> Outcome:
    return attempt(source, fault, scratch, served=number % SERVED == 0, **SETTINGS)


def forgets(folder: Path) -> None:
    """Remove the newest message that waits in a queue."""
    with closing(sqlite3.connect(folder / "data" / "pushd.db", isolation_level=None)) as db:
        number = db.execute("SELECT max(message) FROM queue").fetchone()[0]
        db.execute("DELETE FROM message WHERE id = ?", (number,))


def main() -> int:
    """Run from the command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.disk.killpoints", description=__doc__)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=2)
    options = parser.parse_args()
    if missing := obstacle():
        parser.error(missing)
    began = time.monotonic()
    with bench(**SETTINGS) as (source, scratch):
        found = killed(source, scratch, options.every, options.at_once)
        first = killed(None, scratch, options.every, options.at_once)
        control = lost_message(source, scratch)
    by_call = Counter(outcome.fault.partition(":")[0] for outcome in found + first)
    violations = [
        f"{outcome.fault}: {problem}" for outcome in found + first for problem in outcome.problems
    ]
    figures = {
        "kill points in the script": len(found),
        "kill points in a first start and the script": len(first),
        **{f"of them {call}": count for call, count in by_call.items()},
        "fewest steps done before a kill": min(outcome.done for outcome in found),
        "most steps done before a kill": max(outcome.done for outcome in found),
        "seconds": round(time.monotonic() - began),
    }
    return conclude("killpoints", figures, violations, {"a confirmed message removed": control})


def lost_message(source: Path, scratch: Path) -> str:
    """Say whether the judges see that a confirmed message is gone."""
    outcome = attempt(source, "", scratch, between=forgets, **SETTINGS)
    return f"caught: {outcome.problems[0]}" if outcome.problems else "NOT CAUGHT"


if __name__ == "__main__":
    sys.exit(main())
