"""Simulate the core of the server under many seeds.

    python -m tests.sim --seeds 500               # seeds 1 to 500; --first says where to begin
    python -m tests.sim --seed 25                 # one of them, with the log of what clients saw
    python -m tests.sim --seeds 50 --twice        # each twice: the logs must be the same
    python -m tests.sim --bugs --seeds 1000       # seeded bugs, each until a seed finds it

A seed and a commit are a run. Exit code 1 if there is a violation, if two runs of a seed differ,
or if a bug is not found.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator
from multiprocessing import get_context
from time import monotonic

from tests.model.record import record
from tests.sim.bugs import BUGS, find
from tests.sim.points import FAULTS, PATHS
from tests.sim.world import Outcome, run


def main() -> int:
    """Run from the command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seed", type=int, help="run this one and print its log")
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--twice", action="store_true", help="run every seed twice")
    parser.add_argument("--until", action="store_true", help="end with the first violation")
    parser.add_argument("--bugs", nargs="*", metavar="NAME", help="look for the seeded bugs")
    options = parser.parse_args()
    if options.seed is not None:
        return one(options.seed)
    seeds = range(options.first, options.first + options.seeds)
    if options.bugs is not None:
        return bugs(options.bugs or [bug.name for bug in BUGS], seeds, options.jobs)
    if options.until:
        return until(seeds)
    return many(seeds, options.jobs, twice=options.twice)


def one(seed: int) -> int:
    """Run a seed and print all of it."""
    outcome = run(seed)
    for entry in outcome.entries:
        print(entry)
    print(*outcome.violations, sep="\n")
    print(f"log {outcome.digest}, {len(outcome.violations)} violations")
    return bool(outcome.violations)


def until(seeds: range) -> int:
    """Run seeds until one finds a violation, and print that one."""
    for seed in seeds:
        violations = run(seed).violations
        if violations:
            print(f"seed {seed}: {violations[0]}")
            return 1
    return 0


class Totals:
    """What all runs came to."""

    def __init__(self) -> None:
        self.seeds = self.events = self.confirmed = self.delivered = 0
        self.seconds = self.hours = self.real = 0.0
        self.faults: Counter[str] = Counter()
        self.states: set[int] = set()
        self.violations: list[str] = []
        self.open: list[int] = []  # seeds with violations

    def add(self, outcome: Outcome) -> None:
        """Add one."""
        self.seeds += 1
        self.events += outcome.events
        self.confirmed += outcome.report.confirmed
        self.delivered += outcome.report.delivered
        self.seconds += outcome.seconds
        self.hours += outcome.client_hours
        self.real += outcome.real
        self.faults += outcome.faults
        self.states |= outcome.states
        if outcome.violations:
            self.open.append(outcome.seed)
            self.violations += [f"seed {outcome.seed}: {text}" for text in outcome.violations[:5]]

    def figures(self, elapsed: float, same: int) -> dict[str, str | int | float]:
        """Say it in words."""
        points = [*FAULTS, *PATHS]
        least = min(points, key=lambda name: self.faults[name])
        figures: dict[str, str | int | float] = {
            "seeds": self.seeds,
            "simulated hours": round(self.seconds / 3600, 1),
            "simulated client-hours": round(self.hours, 1),
            "frames": self.events,
            "messages confirmed": self.confirmed,
            "messages delivered": self.delivered,
            "distinct states of queues": len(self.states),
            "simulated : real time": f"{self.seconds / max(elapsed, 0.001):.0f} : 1",
            "seconds": round(elapsed, 1),
            "load average": load(),
            "points": len(points),
            "the point hit least": f"{least}, {self.faults[least]} times",
        }
        if same:
            figures["seeds run twice with the same log"] = same
        return figures


def load() -> float:
    """Give what else the machine had to do."""
    return round(os.getloadavg()[0], 1)


def many(seeds: range, jobs: int, *, twice: bool) -> int:
    """Run seeds, print and record what they came to."""
    totals, begin, same = Totals(), monotonic(), 0
    for outcome in _outcomes(seeds, jobs):
        totals.add(outcome)
        if twice:
            again = run(outcome.seed).digest
            same += again == outcome.digest
            if again != outcome.digest:
                totals.violations.append(f"seed {outcome.seed}: two runs differ")
                totals.open.append(outcome.seed)
        if outcome.violations:
            print(f"seed {outcome.seed}: {outcome.violations[0][:200]}", flush=True)
    figures = totals.figures(monotonic() - begin, same)
    for name, value in figures.items():
        print(f"{name:34} {value}")
    for name, count in totals.faults.most_common():
        print(f"  {name:32} {count}")
    print(f"{'violations':34} {len(totals.violations)}, seeds {totals.open}")
    record("sim", figures, totals.violations)
    return bool(totals.violations)


def _outcomes(seeds: range, jobs: int) -> Iterator[Outcome]:
    if jobs == 1:
        yield from map(_small, seeds)
        return
    with get_context("fork").Pool(jobs) as pool:
        yield from pool.imap(_small, seeds)


def _small(seed: int) -> Outcome:
    """Run a seed; what is handed to another process goes without the log."""
    outcome = run(seed)
    outcome.entries = []
    return outcome


def bugs(names: list[str], seeds: range, jobs: int) -> int:
    """Look for seeded bugs, and record which seed found each."""
    chosen = [bug for bug in BUGS if bug.name in names]
    found: dict[str, str] = {}
    with get_context("fork").Pool(jobs) as pool:
        jobs_of = ((bug, seeds) for bug in chosen)
        for bug, seed, violation in pool.imap_unordered(_find, jobs_of):
            found[bug.name] = f"found by seed {seed}: {violation}" if seed else "NOT FOUND"
            print(f"{bug.name:34} {found[bug.name][:160]}", flush=True)
    missed = [name for name, text in found.items() if text == "NOT FOUND"]
    print(f"{len(found) - len(missed)} of {len(found)} bugs found")
    figures: dict[str, str | int | float] = {"bugs": len(found), "found": len(found) - len(missed)}
    figures["load average"] = load()
    record("sim-bugs", figures, [f"not found: {name}" for name in missed], found)
    return bool(missed)


def _find(job: tuple[object, range]) -> tuple[object, int, str]:
    bug, seeds = job
    seed, violation = find(bug, seeds)  # type: ignore[arg-type]
    return bug, seed, violation


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets of strings must not differ from process to process.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.sim", *sys.argv[1:]])
    sys.exit(main())
