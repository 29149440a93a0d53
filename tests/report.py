"""Write the page on reliability: what ran, how often, what it found, and on which commit.

    python -m tests.report            # or `make report`

Takes in the records that long runs have left (see `tests.model.record`), keeps the last one of
each tool in tests/model/recorded.json, and puts the tables made of them between the marks in
docs/reliability.md. The words around them are written by hand.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from tests.model.record import FOLDER, ROOT

RECORDED = ROOT / "tests" / "model" / "recorded.json"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- made by `make report` -->\n", "<!-- end -->\n"

# In the order of the page: a make target and what it is, for people.
TOOLS = {
    "sim": "The core in one thread under a seed, with virtual time",
    "sim-bugs": "The same, with bugs put into the code by hand",
    "crash": "SIGKILL at random under load",
    "killpoints": "SIGKILL at each write and sync of a script",
    "powercut": "Power cuts, rebuilt from a trace of all writes",
    "faults": "Errors of the disk at each call",
    "fulldisk": "A disk that fills up, again and again",
    "damage": "Files damaged at rest",
    "drill": "Backups under load, restored",
    "migrations": "Migrations cut off at each write",
    "net-sessions": "Sessions through a network that fails",
    "net-library": "Our own client on such a network",
    "net-half-open": "Clients that are gone without a word",
    "net-slow": "Clients that do not read, or hardly write",
    "net-floods": "Connections, restarts and logins, all at once",
    "net-descriptors": "No descriptors left",
    "net-cases": "What broke other servers, on the network",
    "fuzz": "Bytes at the parser and the handlers, guided by coverage",
    "properties": "Properties of splits, texts, fields and settings",
    "heavy": "Lines of a megabyte that take longest",
    "machines": "Random commands against a model, with kills",
    "bugs": "The same, with bugs put into the code by hand",
    "timing": "Whether the time of a login tells who is registered",
    "time": "Clocks that jump, zones",
    "soak": "Long runs under load, with churn and kills",
    "stops": "Stops and upgrades under load",
}

CONTROL = 60  # characters of what a control was caught by

Record = dict[str, Any]


def merge(recorded: dict[str, Record], folder: Path = FOLDER) -> dict[str, Record]:
    """Give the last record of each tool."""
    found = dict(recorded)
    for path in sorted(folder.glob("*.json")):
        fresh: Record = json.loads(path.read_text())
        known = found.get(fresh["tool"])
        if known is None or known["date"] <= fresh["date"]:
            found[fresh["tool"]] = fresh
    order = list(TOOLS)
    return dict(sorted(found.items(), key=lambda item: order.index(item[0])))


def tables(recorded: dict[str, Record]) -> str:
    """Write what the records say."""
    lines = [
        "| run | what was done and seen | violations | what had to fail, and did |",
        "| --- | --- | --- | --- |",
    ]
    for tool, record in recorded.items():
        figures = "; ".join(
            f"{name}: {_number(value)}" for name, value in record["figures"].items()
        )
        controls = "; ".join(f"{name}: {_cut(what)}" for name, what in record["controls"].items())
        cells = (
            f"{TOOLS[tool]} (`make {tool}`)",
            figures,
            str(len(record["violations"])),
            controls or "–",
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", "| run | commit | when (UTC) | machine |", "| --- | --- | --- | --- |"]
    for tool, record in recorded.items():
        lines.append(
            f"| `make {tool}` | {record['commit']} | {record['date']} | {record['machine']} |"
        )
    lines += ["", *_violations(recorded)]
    return "\n".join(lines)


def _cut(what: str) -> str:
    """Leave of what a control was caught by as much as a table bears."""
    return what if len(what) <= CONTROL else what[: CONTROL - 1] + "…"


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _violations(recorded: dict[str, Record]) -> list[str]:
    found = [
        f"- `make {tool}`: {one}"
        for tool, record in recorded.items()
        for one in record["violations"]
    ]
    return ["Open violations:", "", *found, ""] if found else ["No violation is open.", ""]


def page(text: str, recorded: dict[str, Record]) -> str:
    """Give the page with its tables made anew."""
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n{tables(recorded)}\n{END}", text, count=1)


def _lines(folder: str) -> int:
    files = (ROOT / folder).rglob("*.py")
    return sum(len(file.read_text().splitlines()) for file in files)


def main() -> int:
    """Take the records in and write the page."""
    known: dict[str, Record] = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    recorded = merge(known)
    RECORDED.write_text(json.dumps(recorded, indent=2, ensure_ascii=False) + "\n")
    PAGE.write_text(page(PAGE.read_text(), recorded))
    print(tables(recorded))
    print(f"{_lines('tests') / _lines('pushd'):.1f} lines of test stand against one of code.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
