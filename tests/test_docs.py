"""The documents say what the code does: a change to one of them alone fails here.

What they show of terminals and programs is replayed (`tests/tour.py`); their tables are compared
with the code. A failure names the row or the line that the document should have.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from pushd import __version__, cli, handlers, model
from pushd.config import SETTINGS
from pushd.handlers.terminal import fields_of
from pushd.metrics import METRICS
from pushd.settings import Setting, toml
from pushd.status import Status
from tests import tour

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "pushd"
DOCS = ROOT / "docs"
PROTOCOL = DOCS / "protocol.md"
OPERATIONS = DOCS / "operations.md"
DECISIONS = sorted((DOCS / "decisions").glob("*.md"))

DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md")), *DECISIONS]
EACH = pytest.mark.parametrize("path", DOCUMENTS, ids=[path.stem[:24] for path in DOCUMENTS])

# Modules of the client; what they make of events is no event of the server's.
CLIENT = {"calls", "client", "inbox", "link", "outgoing", "terminal", "transfer"}

# What is documented by a list of its members, in its order.
SHAPES: list[type[Struct]] = [
    model.UserOut,
    model.DeviceOut,
    model.RequestOut,
    model.GroupOut,
    model.MemberOut,
    model.PresenceOut,
    model.StatusOut,
    model.WhoAmI,
    model.HelpOut,
]


def prose(path: Path) -> str:
    """A document without its blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def rows(text: str) -> Iterator[list[str]]:
    """The cells of each row of each table, but for the rules under the heads."""
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            yield [cell.strip() for cell in line.strip("| ").split(" | ")]


def tables(path: Path, *head: str) -> list[list[str]]:
    """The rows of all tables of a document that have this head."""
    found: list[list[str]] = []
    inside = False
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("|"):
            inside = False
        elif next(rows(line), []) == list(head):
            inside = True
        elif inside:
            found += rows(line)
    assert found, f"{path.name} has no table {head}"
    return found


def ticked(text: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`\n]+)`", text)


# Replays


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [ROOT / "README.md", PROTOCOL, OPERATIONS, DOCS / "tour.md"], ids=lambda p: p.stem
)
def test_what_is_shown_is_what_happens(path: Path, tmp_path: Path) -> None:
    """Each terminal and program of a document does what the document shows.

    If the document is what has to change: python -m tests.tour --write FILE
    """
    documented = path.read_text("utf-8")
    assert tour.replay(documented, tmp_path).splitlines() == documented.splitlines()


@pytest.mark.slow
def test_a_replay_notices_a_difference(tmp_path: Path) -> None:
    """A replay puts what really happens in the place of what a document says."""
    told = '```session\na> {"cmd":"ping"}\na< {"cmd":"pong"}\n$ echo 1\n2\n```\n'
    lines = tour.replay(told, tmp_path).splitlines()
    assert lines[2].startswith('a< {"cmd":"ping","status":1,"result":{"text":""},"message":"ok"')
    assert lines[3:] == ["$ echo 1", "1", "```"]


@pytest.mark.slow
def test_a_replay_notices_what_is_left_out(tmp_path: Path) -> None:
    """A line that a terminal shows and the document does not is an error."""
    told = '```session\na> {"cmd":"ping"}\na> {"cmd":"ping"}\na< \n```\n'
    with pytest.raises(AssertionError, match="more than the document says"):
        tour.replay(told, tmp_path)


# Tables


def test_commands() -> None:
    """The protocol lists each command with what it needs and its fields with their types."""
    documented = [row[:3] for row in tables(PROTOCOL, "cmd", "needs", "fields", "result")]
    real = [
        [
            f"`{row.name}`",
            str(row.needs),
            ", ".join(f"`{name}` {kind}" for name, kind in fields_of(row).items()) or "–",
        ]
        for row in handlers.table().values()
    ]
    assert sorted(documented) == sorted(real)


def test_what_lists_is_called_a_list() -> None:
    """The result of a command is called a list if it is one, and only then."""
    listing = {
        row[0].strip("`")
        for row in tables(PROTOCOL, "cmd", "needs", "fields", "result")
        if row[3].startswith("list of")
    }
    assert listing == {row.name for row in handlers.table().values() if row.listing}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_members_of_results(shape: type[Struct]) -> None:
    """The protocol names the members of a result in their order."""
    members = ", ".join(f'"{field.encode_name}"' for field in msgspec.structs.fields(shape))
    assert f"`{{{members}}}`" in re.sub(r"\s+", " ", PROTOCOL.read_text("utf-8"))


def test_fields_of_a_message() -> None:
    """The protocol says of each field of a message that a client may send what it means."""
    section = PROTOCOL.read_text("utf-8").partition("What a client sends:")[2]
    table = section.partition("What a recipient gets")[0]
    documented = [name for row in rows(table) for name in ticked(row[0])]
    real = [field.encode_name for field in msgspec.structs.fields(model.MessageIn)]
    assert sorted(documented) == sorted([*real, "createTime"])  # which is not looked at


def test_status_codes() -> None:
    """The protocol lists all status codes, in the order of the code."""
    documented = [row[:2] for row in tables(PROTOCOL, "code", "name", "meaning")]
    assert documented == [[str(int(status)), f"`{status.name}`"] for status in Status]


def test_events() -> None:
    """The protocol lists each event with all the fields that it may have."""
    documented = {
        row[0].strip("`"): set(ticked(row[2]))
        for row in tables(PROTOCOL, "event", "in", "fields", "who gets it")
    }
    assert documented == events_of_the_code()


def events_of_the_code() -> dict[str, set[str]]:
    """Each event with its fields: literals with a `name`, and what is added to them later."""
    found: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        if path.relative_to(SOURCE).parts[0].removesuffix(".py") in CLIENT:
            continue
        code = path.read_text("utf-8")
        if '"name"' not in code:
            continue
        tree = ast.parse(code)
        for scope in [tree, *ast.walk(tree)]:
            if not isinstance(scope, ast.Module | ast.FunctionDef):
                continue
            for name, fields in events_of(scope):
                found[name] = found.get(name, set()) | fields
    return found


def events_of(scope: ast.Module | ast.FunctionDef) -> Iterator[tuple[str, set[str]]]:
    """The events of one function; in the scope of a module also those in no function."""
    added: dict[str, set[str]] = {}
    for node in ast.walk(scope):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            key = node.slice
            if isinstance(node.value, ast.Name) and isinstance(key, ast.Constant):
                added.setdefault(node.value.id, set()).add(str(key.value))
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            keys = node.value.keys if isinstance(node.value, ast.Dict) else []
            more = {str(key.value) for key in keys if isinstance(key, ast.Constant)}
            added.setdefault(node.target.id, set()).update(more)
    targets: dict[int, str] = {}
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name):
                targets[id(node.value)] = target.id
    for node in ast.walk(scope):
        if not isinstance(node, ast.Dict):
            continue
        items = {
            key.value: value
            for key, value in zip(node.keys, node.values, strict=True)
            if isinstance(key, ast.Constant)
        }
        name = items.pop("name", None)
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            more = set() if isinstance(scope, ast.Module) else added.get(targets.get(id(node), ""))
            yield name.value, {str(key) for key in items} | (more or set())


def test_settings() -> None:
    """Each setting has its row in one of two documents: default, unit, meaning and choices."""
    head = ("setting", "default", "unit", "meaning")
    documented = [" | ".join(row) for path in (PROTOCOL, OPERATIONS) for row in tables(path, *head)]
    assert sorted(documented) == sorted(map(setting_row, SETTINGS.values()))


def setting_row(setting: Setting) -> str:
    """The row that a document should have."""
    choices = f" ({', '.join(setting.choices)})" if setting.choices else ""
    default = f"`{toml(setting.default)}`"
    mark = " (restart)" if setting.restart else ""
    return f"`{setting.key}` | {default} | {setting.unit or '–'} | {setting.text}{choices}{mark}"


def test_metrics() -> None:
    """The operator's document has each metric: its kind, its label and its meaning, in order."""
    documented = tables(OPERATIONS, "metric", "kind", "label", "meaning")
    assert documented == [
        [f"`{row.name}`", row.kind, f"`{row.label}`" if row.label else "–", row.text]
        for row in METRICS
    ]


# Words


@EACH
def test_settings_in_prose(path: Path) -> None:
    """What a document says of a setting, `name = default`, is so, and each one named exists."""
    sections = {key.partition(".")[0] for key in SETTINGS}
    for word in ticked(prose(path)):
        name, equals, value = word.partition(" = ")
        if name.partition(".")[0] not in sections or not re.fullmatch(r"[a-z]+\.[a-z_]+", name):
            continue
        if name.endswith(".py"):
            continue
        assert name in SETTINGS, f"there is no setting {name}"
        if equals:
            assert value == toml(SETTINGS[name].default), f"the default of {name} is another one"


@EACH
def test_links(path: Path) -> None:
    """Each link within the project leads to a file, and to a heading of it if it says one."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        assert "://" not in target, "the documents need nothing from elsewhere"
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.is_file(), f"{target} does not exist"
        assert ROOT in file.parents, f"{target} leads out of the project"
        if anchor:
            assert anchor in anchors(file), f"{target}: there is no such heading"


def anchors(path: Path) -> set[str]:
    """The names by which the headings of a document are reached."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def names_of_the_code() -> set[str]:
    """What is defined anywhere: `class X`, `def x`, `self.x`."""
    code = "".join(file.read_text("utf-8") for file in SOURCE.rglob("*.py"))
    return set(re.findall(r"\b(?:class |def |self\.)\w+", code))


@EACH
def test_names_of_the_code(path: Path) -> None:
    """Modules, files and members of classes that a document names in backticks exist."""
    names = names_of_the_code()
    for word in ticked(prose(path)):
        if re.fullmatch(r"(pushd|tests|docs|packaging)/[\w/.-]+", word):
            assert (ROOT / word).exists(), f"there is no {word}"
        elif re.fullmatch(r"[A-Z]\w+\.[a-z_]+", word):
            holder, _, member = word.partition(".")
            assert f"class {holder}" in names, f"there is no class {holder}"
            assert {f"def {member}", f"self.{member}"} & names, f"there is no {word}"
        elif (
            re.fullmatch(r"[a-z]+\.[a-z_]+", word)
            and (SOURCE / f"{word.split('.')[0]}.py").exists()
        ):
            member = word.partition(".")[2]
            known = {f"def {member}", f"class {member}"} & names
            assert known or word in SETTINGS or member in ("py", "sock"), f"there is no {word}"


def test_flags_of_pushd() -> None:
    """The operator's document lists the flags of `pushd`, all of them and no others."""
    documented = {
        word.split()[0] for row in tables(OPERATIONS, "flag", "meaning") for word in ticked(row[0])
    }
    real = {name for option in cli.pushd.params for name in option.opts} | {"-h", "--help"}
    assert documented == real


def test_verbs_of_pushctl() -> None:
    """The operator's document lists the verbs of `pushctl`; no document names another one."""
    documented = {row[0].strip("`") for row in tables(OPERATIONS, "`pushctl`", "what it does")}
    real = set(cli.pushctl.commands)
    assert documented == real
    for path in DOCUMENTS:
        named = re.findall(r"(?:^    |`)pushctl ([a-z]+)", prose(path), re.MULTILINE)
        assert set(named) <= real, path.name


def test_targets_of_make() -> None:
    """What the readme says to make can be made."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    named = re.findall(r"\bmake ([a-z]+)", (ROOT / "README.md").read_text("utf-8"))
    assert {"run", "test"} <= set(named)
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_decisions_are_whole_and_listed() -> None:
    """Decisions are numbered without a hole, short, of three parts, and listed in one place."""
    index = re.findall(
        r"^(\d+)\. \[(.+)\]\(decisions/(.+)\)$", prose(DOCS / "architecture.md"), re.M
    )
    listed = [(int(number), title, file) for number, title, file in index]
    found = []
    for path in DECISIONS:
        text = path.read_text("utf-8")
        heading = re.match(r"# (\d+)\. (.+)\n", text)
        assert heading, path.name
        assert re.findall(r"^## (.+)$", text, re.M) == ["Context", "Decision", "Consequences"]
        assert len(text.splitlines()) <= 30, f"{path.name} is no short one any more"
        assert path.name.startswith(f"{int(heading[1]):04}-")
        found.append((int(heading[1]), heading[2], path.name))
    assert [number for number, _, _ in found] == list(range(1, len(found) + 1))
    assert listed == found


def test_the_changes_are_of_this_version() -> None:
    """The newest version that the changes speak of is the one that is built, or what follows it."""
    versions = re.findall(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert next(each for each in versions if each != "Unreleased") == __version__
    assert "Unreleased" not in versions[1:]


def test_the_package_is_typed() -> None:
    """Who uses the client gets its types."""
    assert (SOURCE / "py.typed").exists()
