"""Let each call of a fixed script fail in turn, and see that nothing false is confirmed.

    python -m tests.disk.errors                    # all points; --every 10 for a tenth of them

One call of a server fails: a write, a sync, a cut, the opening of a file, each with the errors
that a disk gives (EIO, ENOSPC, nothing written) or that a machine does (EMFILE, EACCES). Whatever
it is, the store must be sound afterwards and know all that was confirmed, and the server does one
of these:

    it goes on, and refuses what it could not do (4007 for a full disk, 5000 for a file)
    it ends with 1 and one line that says why: after a failed write or sync of the store
    it does not start, with 1 and one line

No cause gives more than one line of the log. Exit code 1 if any of this does not hold.

The control is a server that simply tries again what failed, and so trusts a second sync that says
nothing of the first; it must be found to go on.
"""

import argparse
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.disk.attempts import Outcome, attempt, bench, count_calls
from tests.disk.traced import obstacle
from tests.model.record import conclude

# What may go wrong with a call. A write that writes nothing is what a full disk may do as well.
ERRORS = {
    "pwrite64": ("error=EIO", "error=ENOSPC", "retval=0"),
    "fdatasync": ("error=EIO", "error=ENOSPC"),
    "fsync": ("error=EIO", "error=ENOSPC"),
    "ftruncate": ("error=EIO",),
    "rename": ("error=EIO", "error=ENOSPC"),
    "mkdir": ("error=EIO", "error=ENOSPC", "error=EACCES"),
}
# The opening of files is made to fail by the launcher, for the files of the data folder alone.
OPENS = ("EMFILE", "EACCES", "EIO", "ENOSPC")
MOST_OPENS = 40
SETTINGS = {"store_checkpoint_pages": 30}
# With these each sync is that of a commit.
COMMITS_ALONE = {"store_checkpoint_pages": 4000}
LAUNCHER = ("-m", "tests.disk.launcher")


def faults(counts: dict[str, int]) -> list[str]:
    """Give every fault of every call, and some that stay."""
    found = []
    for call, errors in ERRORS.items():
        for number in range(1, counts.get(call, 0) + 1):
            found += [f"{call}:{error}:when={number}" for error in errors]
    lasting = range(1, counts.get("pwrite64", 0) + 1, 3)
    return found + [f"pwrite64:error=ENOSPC:when={number}+" for number in lasting]


def judged(outcome: Outcome) -> Outcome:
    """Add what of the outcome is not as it is documented."""
    if outcome.fault.endswith("+"):
        # Acks that there is no room for, and no reserve, are committed once there is.
        outcome.problems = [each for each in outcome.problems if not each.startswith("acks")]
    found = outcome.problems
    if outcome.code is not None and outcome.code != 1:
        found.append(f"it ended with {outcome.code}")
    if outcome.code == 1 and len(outcome.lines) != 1:
        found.append(f"it ended with {len(outcome.lines)} lines: {outcome.lines}")
    if outcome.started and len(outcome.lines) > max(1, outcome.internal):
        found.append(f"{len(outcome.lines)} lines for one cause: {outcome.lines}")
    if outcome.stopped not in (0, 1) or (outcome.stopped and len(outcome.lines) != 1):
        found.append(f"it stopped with {outcome.stopped}: {outcome.lines}")
    if outcome.unsynced and 1 not in (outcome.code, outcome.stopped):
        found.append("it trusts a store whose sync failed")
    return outcome


def one(source: Path, scratch: Path, fault: str, settings: Mapping[str, int] = SETTINGS) -> Outcome:
    """Try one fault."""
    if not fault.startswith("open:"):
        return judged(attempt(source, fault, scratch, **settings))
    more = {"FAILING_OPEN": fault.removeprefix("open:")}
    return judged(
        attempt(source, "", scratch, launcher=LAUNCHER, environment=more, name=fault, **settings)
    )


def control(source: Path, scratch: Path) -> str:
    """Say whether a server that does not hear of a failed sync is found out."""
    outcome = attempt(
        source,
        "fdatasync:error=EIO:when=8",
        scratch,
        launcher=LAUNCHER,
        environment={"DEAF": "1"},
        **COMMITS_ALONE,
    )
    problems = judged(outcome).problems
    trusts = [problem for problem in problems if "trusts" in problem]
    return f"caught: {trusts[0]}" if trusts else f"NOT CAUGHT {problems}"


def what_came(outcomes: list[Outcome]) -> str:
    """Say in a few words what some faults led to."""
    kinds: Counter[str] = Counter()
    for outcome in outcomes:
        if not outcome.started:
            kinds["not started"] += 1
        elif outcome.code is not None or outcome.stopped:
            kinds["ended with 1"] += 1
        elif outcome.internal or outcome.refused:
            kinds["refused"] += 1
        else:
            kinds["unnoticed"] += 1
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def main() -> int:
    """Run from the command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.disk.errors", description=__doc__)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--only", default="", help="faults that hold this text")
    options = parser.parse_args()
    if missing := obstacle():
        parser.error(missing)
    began = time.monotonic()
    with bench(**SETTINGS) as (source, scratch):
        whole = faults(count_calls(source, scratch, **SETTINGS))
        whole += [f"open:{error}:{n}" for error in OPENS for n in range(1, MOST_OPENS + 1)]
        chosen = [fault for fault in whole if options.only in fault][:: options.every]
        with ThreadPoolExecutor(options.at_once) as pool:
            outcomes = list(pool.map(partial(one, source, scratch), chosen))
        caught = control(source, scratch)
    by_kind: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_kind[outcome.fault.rpartition(":")[0]].append(outcome)
    violations = [f"{one.fault}: {problem}" for one in outcomes for problem in one.problems]
    figures: dict[str, str | int] = {"faults": len(outcomes)}
    for kind, found in sorted(by_kind.items()):
        figures[kind] = f"{len(found)}: {what_came(found)}"
    figures["seconds"] = round(time.monotonic() - began)
    return conclude("faults", figures, violations, {"deaf to failed syncs": caught})


if __name__ == "__main__":
    sys.exit(main())
