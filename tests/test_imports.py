"""The rooms of the house: which module may import which, as docs/architecture.md says it.

To add a module, add its row here and in that document. A package is one room: its modules may
import each other, and all of them what its row allows.
"""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "pushd"
DOCUMENT = ROOT / "docs" / "architecture.md"

# Room: the rooms it may import. `*` is all rooms but the commands.
TABLE = {
    # Words
    "status": "",
    "errors": "status",
    "build": "",
    "clock": "",
    "sockets": "",
    "histogram": "",
    "folders": "",
    "audit": "",
    "common": "",
    "tls": "",
    "systemd": "",
    "encoding": "",
    "settings": "",
    "log": "",
    "steady": "",
    "keylines": "",
    "config": "errors keylines settings",
    # The core, without I/O
    "model": "",
    "names": "errors status",
    "limits": "errors",
    "protocol": "clock encoding errors model status",
    "draft": "config encoding errors model names protocol status",
    "outbox": "model",
    "session": "errors limits model outbox protocol status",
    # Beside the loop
    "passwords": "errors",
    "media": "errors folders status",
    "store": (
        "audit clock config draft encoding errors folders histogram model names outbox status"
        " steady"
    ),
    # Upkeep
    "jobs": "errors status",
    "archive": "errors folders media steady store",
    "backup": "archive errors folders jobs media steady store",
    "check": "archive errors jobs media store",
    # The server
    "hub": "clock encoding errors model outbox protocol session status",
    "commands": (
        "audit clock config errors hub jobs limits media model passwords protocol session status"
        " store"
    ),
    "handlers": (
        "backup check clock commands common draft encoding errors jobs media model names outbox"
        " protocol session status store"
    ),
    "service": "commands config draft errors limits model session status",
    "connection": (
        "commands config draft errors handlers hub log model outbox protocol service session"
        " sockets status store"
    ),
    "health": "histogram hub service store",
    "metrics": "health histogram service status store",
    "exporter": "config health metrics",
    "control": ("clock connection errors log metrics model protocol session sockets status store"),
    "reload": "commands config errors log service",
    "dump": "service",
    "upkeep": "clock commands handlers",
    "listeners": "config connection service sockets",
    "stages": "clock service",
    "server": "*",
    # The client
    "inbox": "",
    "outgoing": "errors inbox",
    "link": "errors inbox status",
    "calls": "inbox link",
    "transfer": "calls inbox link status",
    "client": "calls errors inbox link outgoing status transfer",
    "terminal": "client tls",
    # The commands
    "ctl": "backup build check config errors jobs log settings sockets store terminal tls",
    "cli": "config ctl errors exporter log server settings systemd tls",
    "__main__": "cli",
}

COMMANDS = {"cli", "ctl", "__main__"}

# Rooms that get bytes, times and rows as arguments, and run in a simulation as they are.
WITHOUT_IO = {
    "audit", "config", "draft", "encoding", "errors", "limits", "model", "names",
    "outbox", "outgoing", "protocol", "session", "settings", "status",
}  # fmt: skip
IO = {"aiosqlite", "asyncio", "select", "selectors", "socket", "sqlite3", "ssl", "uvloop"}

# Rooms that may import a database; the server tells its version.
DATABASE = {"store", "server"}

# Rooms that may look at the environment; all others get a Config.
ENVIRONMENT = {"cli", "ctl"}


def allowed(room: str) -> set[str]:
    """The rooms that a room may import, by TABLE."""
    return set(TABLE) - COMMANDS - {room} if TABLE[room] == "*" else set(TABLE[room].split())


def modules() -> Iterator[tuple[Path, str]]:
    """Each source file with its room."""
    for path in sorted(SOURCE.rglob("*.py")):
        room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if room != "__init__":
            yield path, room


def imported(path: Path, tree: ast.AST) -> Iterator[str]:
    """The full names that a file imports, relative ones resolved; of `from a import b`, a.b."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            head = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{head}.{alias.name}" for alias in node.names)


def rooms_of(names: Iterator[str]) -> set[str]:
    """The rooms among imported names; a name of the package itself is in none."""
    heads = {name.split(".")[1] for name in names if name.startswith("pushd.")}
    return {head for head in heads if (SOURCE / head).is_dir() or (SOURCE / f"{head}.py").exists()}


def documented(text: str) -> dict[str, set[str]]:
    """The rows of the document's table: room -> the rooms that its last cell names."""
    rows = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        found = (
            re.findall(r"([a-z_]+)(?:/[a-z_]*)?(?:\.py\b|/)", cells[0]) if len(cells) > 2 else []
        )
        if line.lstrip().startswith("| `") and found:
            for room in found if "/" not in cells[0] else found[:1]:
                rows[room] = named(cells[-1], room)
    return rows


def named(cell: str, room: str) -> set[str]:
    """The rooms in a cell: a list of names, `–` for none, or `all but …`."""
    cell = cell.replace("`", "")
    words = set(re.findall(r"[a-z_]+", cell))
    if cell.startswith("all but"):
        return set(TABLE) - COMMANDS - words - {room}
    return words


SOURCES = [pytest.param(path, room, id=str(path.relative_to(SOURCE))) for path, room in modules()]


@pytest.mark.parametrize(("path", "room"), SOURCES)
def test_a_module_imports_only_what_its_row_allows(path: Path, room: str) -> None:
    """Every module has a row, and imports of pushd nothing beyond it."""
    assert room in TABLE, f"add a row for {room} here and in docs/architecture.md"
    used = rooms_of(imported(path, ast.parse(path.read_text("utf-8"))))
    assert used - {room} <= allowed(room)


@pytest.mark.parametrize(("path", "room"), SOURCES)
def test_io_stays_in_its_rooms(path: Path, room: str) -> None:
    """The core imports no loop and no socket; only the store uses a database."""
    roots = {name.split(".")[0] for name in imported(path, ast.parse(path.read_text("utf-8")))}
    if room in WITHOUT_IO:
        assert not roots & IO
    if room not in DATABASE:
        assert not roots & {"aiosqlite", "sqlite3"}


@pytest.mark.parametrize(("path", "room"), SOURCES)
def test_only_the_command_reads_the_environment(path: Path, room: str) -> None:
    """Settings come from one frozen Config, which the command makes from the environment."""
    if room in ENVIRONMENT:
        return
    tree = ast.parse(path.read_text("utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {name.rpartition(".")[2] for name in imported(path, tree)}
    assert not used & {"environ", "environb", "getenv"}


def test_imports_point_one_way() -> None:
    """No room can reach itself: the table has no cycle, and names only rooms."""
    assert set().union(*map(allowed, TABLE)) <= set(TABLE)
    TopologicalSorter({room: allowed(room) for room in TABLE}).prepare()


def test_the_document_has_the_same_table() -> None:
    """docs/architecture.md shows people the rows that the tests enforce."""
    if not DOCUMENT.exists():
        return
    rows = documented(DOCUMENT.read_text("utf-8"))
    assert rows == {room: allowed(room) for room in TABLE}


def test_rows_of_the_document_are_understood() -> None:
    """A row has a module, a file of a package or a package; its last cell names the rooms."""
    text = """
| module | responsibility | may import (of pushd) |
| --- | --- | --- |
| `status.py` | the table | – |
| `store.py` (+ `schema/NNNN_*.sql`) | the `Store` | errors, model |
| `store/` | a package | `errors`, `model` |
| `handlers/account.py, login.py, …` | one family | commands |
| `cli.py`, `__main__.py` | the command | server |
| `server.py` | all of it | all but cli |
"""
    rows = documented(text)
    assert rows["status"] == set()
    assert rows["store"] == {"errors", "model"}
    assert rows["handlers"] == {"commands"}
    assert rows["cli"] == rows["__main__"] == {"server"}
    assert rows["server"] == set(TABLE) - COMMANDS - {"server"}
    assert "login" not in rows and "module" not in rows
