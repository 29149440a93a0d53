"""Where a long run leaves what it came to, for the page that `make report` writes.

A tool calls `conclude` or `record` at its end, whatever it found. The records lie in
`build/reliability/`, one file a tool, the last run of each; `tests.report` makes
docs/reliability.md of them.
"""

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "reliability"
# Of violations, and of characters of each; more say nothing new.
MOST, LONGEST = 20, 300


def record(
    tool: str,
    figures: Mapping[str, str | int | float],
    violations: Sequence[str] = (),
    controls: Mapping[str, str] | None = None,
) -> None:
    """Keep what a run came to.

    `tool` is the name of its make target. `figures` says in words of the page what was done and
    measured ("rounds": 200). `controls` names each negative control and what became of it
    ("synchronous=OFF": "caught: 31 confirmed messages lost").
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    fields = {
        "tool": tool,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "commit": commit(),
        "machine": machine(),
        "figures": dict(figures),
        "violations": [one[:LONGEST] for one in violations[:MOST]],
        "controls": dict(controls or {}),
    }
    text = json.dumps(fields, indent=2, ensure_ascii=False)
    (FOLDER / f"{tool}.json").write_text(text + "\n")


def conclude(
    tool: str,
    figures: Mapping[str, str | int | float],
    violations: Sequence[str] = (),
    controls: Mapping[str, str] | None = None,
) -> int:
    """Print and record what a run came to; gives its exit code.

    That is 1 after a violation, or when a control does not begin with "caught".
    """
    controls = controls or {}
    for name, value in figures.items():
        print(f"{name:<44} {value}")
    for name, text in controls.items():
        print(f"{f'control: {name}':<44} {text}")
    print("\n".join(violations[:MOST]))
    record(tool, figures, violations, controls)
    caught = all(text.startswith("caught") for text in controls.values())
    return 0 if caught and not violations else 1


def commit() -> str:
    """Give the commit that runs, with a + when files differ from it."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def machine() -> str:
    """Say in one line what it runs on."""
    try:
        cores = Path("/proc/cpuinfo").read_text()
    except OSError:
        cores = ""
    model = next((line for line in cores.splitlines() if line.startswith("model name")), ": ?")
    count = cores.count("processor\t:")
    system = f"{platform.system()} {platform.release().split('-')[0]}"
    return (
        f"{count} cores, {model.split(': ')[-1].strip()}, {system}, "
        f"Python {platform.python_version()}"
    )
