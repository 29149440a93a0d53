"""Fuzz for some seconds and tell what came of it: `python -m tests.fuzz.run --seconds 60`.

Each target of `targets.py` gets half of the time, guided by what it reaches (Atheris). The corpus
begins with one sound line of every command and frame, made anew from the table, and what is found
on the way is kept in build/fuzz for the next run. An input that breaks a rule is written there
too, and its name and the rule are printed.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.model.record import ROOT, record

from . import seeds, targets
from .core import World

KEPT = ROOT / "build" / "fuzz"
TARGETS = ("lines", "core")
# Of the decoder's lines, in percent: what is to be reached.
REACHED = 95.0
LONGEST = 1000  # bytes of an input
# Seconds for one input, and MiB for a process.
FLAGS = ("-timeout=20", "-rss_limit_mb=1024", "-print_final_stats=1", f"-max_len={LONGEST}")


def available() -> bool:
    """Tell whether the fuzzer is installed."""
    try:
        import atheris  # noqa: F401
    except ImportError:
        return False
    return True


def plant(folder: Path) -> Path:
    """Write the seeds into a corpus; give the file of the dictionary beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    with World() as world:
        known = world.known
    for number, seed in enumerate(seeds.seeds(targets.TABLE, known)):
        (folder / f"seed-{number:03}").write_bytes(seed)
    words = folder.parent / "words"
    words.write_text(seeds.dictionary(targets.TABLE, known))
    return words


def fuzz(target: str, seconds: int, corpus: Path, words: Path) -> "Outcome":
    """Run one target; the process is told apart from this one by what it imports."""
    command = [sys.executable, "-m", "tests.fuzz.child", "fuzz", target, str(corpus), *FLAGS]
    command += [f"-dict={words}", f"-max_total_time={seconds}", f"-artifact_prefix={words.parent}/"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Outcome(done.returncode, done.stderr + done.stdout, spent)


class Outcome:
    """What a run of libFuzzer said."""

    def __init__(self, code: int, text: str, spent: float) -> None:
        self.text = text
        self.spent = spent  # seconds of a processor
        self.executions = self._number(r"stat::number_of_executed_units:\s+(\d+)")
        self.speed = self._number(r"stat::average_exec_per_sec:\s+(\d+)")
        self.megabytes = self._number(r"stat::peak_rss_mb:\s+(\d+)")
        self.corners = max([0, *map(int, re.findall(r" ft: (\d+)", text))])
        self.problem = "" if code == 0 else self._problem()

    def _number(self, pattern: str) -> int:
        found = re.search(pattern, self.text)
        return int(found[1]) if found else 0

    def _problem(self) -> str:
        """Say which rule was broken, and by which input."""
        said = re.search(r"Uncaught Python exception: ===\s+(.+)", self.text)
        ended = re.search(r"SUMMARY: (.+)", self.text)
        file = re.search(r"Test unit written to (\S+)", self.text)
        why = said[1] if said else ended[1] if ended else self.text[-400:]
        return f"{why} [{file[1] if file else 'no input'}]"


def reached(target: str, corpus: Path) -> tuple[float, str]:
    """Give which part of the decoder's lines a corpus reaches, in percent, and what is left."""
    command = [sys.executable, "-m", "tests.fuzz.child", "replay", target, str(corpus)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line.split(" ", 3) for line in done.stdout.splitlines()]
    hit, there = sum(int(row[1]) for row in rows), sum(int(row[2]) for row in rows)
    left = ", ".join(f"{row[0]} {row[3]}" for row in rows if row[3] != "[]")
    return 100 * hit / max(there, 1), left


def main() -> int:
    """Run, print, and leave the figures for the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="in all")
    parser.add_argument("--target", choices=TARGETS, action="append", help="only this one")
    parser.add_argument("--fresh", action="store_true", help="forget what earlier runs found")
    options = parser.parse_args()
    if not available():
        print("the fuzzer is not installed: pip install pushd[fuzz]")
        return 2
    chosen = options.target or list(TARGETS)
    figures: dict[str, str | int | float] = {}
    violations: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for target in chosen:
            corpus = (Path(folder) if options.fresh else KEPT) / target / "corpus"
            words = plant(corpus)
            outcome = fuzz(target, options.seconds // len(chosen), corpus, words)
            figures[f"{target}: executions"] = outcome.executions
            figures[f"{target}: executions a second"] = outcome.speed
            figures[f"{target}: processor seconds"] = round(outcome.spent)
            figures[f"{target}: corners reached"] = outcome.corners
            figures[f"{target}: memory, MiB"] = outcome.megabytes
            figures[f"{target}: inputs kept"] = len(list(corpus.iterdir()))
            if outcome.problem:
                violations.append(f"{target}: {outcome.problem}")
            if target == "lines" and not outcome.problem:
                percent, left = reached(target, corpus)
                figures["lines of the decoder reached, %"] = round(percent, 1)
                if percent < REACHED:
                    violations.append(f"{percent:.1f} % of the decoder was reached, not {left}")
    figures["load"] = round(os.getloadavg()[0], 1)
    for name, value in figures.items():
        print(f"{name:40}{value}")
    for each in violations:
        print("VIOLATION:", each)
    record("fuzz", figures, violations)
    return bool(violations)


if __name__ == "__main__":
    sys.exit(main())
