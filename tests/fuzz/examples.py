"""How many examples the properties of this room take, and how many they took.

Few by default; `python -m tests.fuzz.examples --examples 100000` runs all of them for long, and
leaves what came of it for the report. Each property says `tried(name)` for each example.
"""

import argparse
import atexit
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, settings

from tests.model.record import ROOT, record

WANTED = "PUSHD_FUZZ_EXAMPLES"
TALLY = "PUSHD_FUZZ_TALLY"  # the file where a run leaves its counts

_tried: Counter[str] = Counter()


def examples(few: int) -> settings:
    """Give the settings of a property that takes so many examples by default."""
    return settings(
        max_examples=int(os.environ.get(WANTED, few)),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


def tried(name: str) -> None:
    """Count one example of a property."""
    _tried[name] += 1


def _leave_tally() -> None:
    if file := os.environ.get(TALLY):
        Path(file).write_text(json.dumps(_tried))


atexit.register(_leave_tally)


def main() -> int:
    """Run all properties for long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=1000, help="of each property")
    parser.add_argument("-k", default="property", help="which ones, as pytest selects tests")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = Path(folder, "tally")
        environment = {WANTED: str(options.examples), TALLY: str(tally)}
        begin = time.monotonic()
        command = [sys.executable, "-m", "pytest", "-q", "--timeout=0", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, "tests/fuzz", "-k", options.k],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        counts: dict[str, int] = json.loads(tally.read_text()) if tally.exists() else {}
    figures: dict[str, str | int | float] = {f"examples: {name}": n for name, n in counts.items()}
    figures["examples in all"] = sum(counts.values())
    figures["seconds"] = round(time.monotonic() - begin)
    figures["load"] = round(os.getloadavg()[0], 1)
    for name, value in figures.items():
        print(f"{name:48}{value}")
    found = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if done.returncode and not found:
        found = [done.stdout[-2000:]]
    if found:
        print(done.stdout[-8000:])
    record("properties", figures, found)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
