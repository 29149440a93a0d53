"""Which modules are compiled on demand, and that what is built can tell."""

import ast
import importlib
import runpy
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from pushd import build

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "pushd"
MODULES: tuple[str, ...] = runpy.run_path(str(ROOT / "packaging" / "compiling.py"))["MODULES"]


def test_what_is_compiled_exists() -> None:
    """The list names sources, each once and in order."""
    assert [name for name in MODULES if not (SOURCES / f"{name}.py").is_file()] == []
    assert list(MODULES) == sorted(set(MODULES))


def test_children_of_compiled_classes_are_compiled() -> None:
    """A class that is compiled cannot be made by a child that is not: that fails at run time."""
    classes = {
        path.relative_to(SOURCES).with_suffix("").as_posix(): [
            node
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if type(node) is ast.ClassDef
        ]
        for path in SOURCES.rglob("*.py")
    }
    parents = {each.name for name in MODULES for each in classes[name]}
    children = [
        f"{name}.{each.name}"
        for name, found in classes.items()
        for each in found
        if name not in MODULES
        and parents
        & {word.id for base in each.bases for word in ast.walk(base) if type(word) is ast.Name}
    ]
    assert children == []


def test_no_library_lies_beside_the_sources() -> None:
    """It would win over the source, edited or not."""
    assert [path for path in SOURCES.rglob("*") if path.suffix in (".so", ".c")] == []


def test_a_build_tells_whether_it_is_compiled() -> None:
    """It is told by what is loaded, and looking loads nothing."""
    outbox = importlib.import_module("pushd.outbox")
    assert build.compiled() == str(outbox.__file__).endswith(tuple(EXTENSION_SUFFIXES))
