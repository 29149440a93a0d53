"""The document on security names a test for each line of the checklist, and the tests exist."""

import ast
import re
from pathlib import Path

import pytest

from tests.test_docs import rows, tables

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "security.md"

# The lines that were chosen, by their numbers in OWASP ASVS 5.0; of 12 and 13 the whole chapter.
LINES = """
    6.1.1 6.2.1 6.2.2 6.2.3 6.2.4 6.2.5 6.2.8 6.2.9 6.3.1 6.3.8 6.4.1 6.4.2 6.4.6
    7.2.1 7.2.3 7.2.4 7.3.1 7.3.2 7.4.1 7.4.2 7.4.3 7.4.5 7.5.1 7.5.2
    8.2.1 8.2.2 8.2.3 8.3.1 8.3.2 2.2.1 2.2.2 2.2.3 2.3.1 2.3.3 2.3.4 2.4.1
    5.1.1 5.2.1 5.2.2 5.2.4 5.2.6 5.3.2 5.4.1 5.4.2 12.1.1 12.3.1 12 13
    15.2.2 15.3.1 15.3.3 15.3.4 15.3.5 15.4.2
    16.2.1 16.2.2 16.2.5 16.3.1 16.3.2 16.3.3 16.3.4 16.4.1 16.5.1 16.5.3 16.5.4
"""

CHECKLIST = tables(DOCUMENT, "line", "what it is about", "how it holds", "test")
OTHERS = tables(DOCUMENT, "what was tried", "how it holds", "test")


def test_each_line_has_a_row() -> None:
    """All lines stand there, each once and in order, and no others."""
    assert [number for row in CHECKLIST for number in row[0].split(", ")] == LINES.split()


@pytest.mark.parametrize("row", [*CHECKLIST, *OTHERS], ids=lambda row: row[0])
def test_the_tests_of_a_row_exist(row: list[str]) -> None:
    """Each row names tests, or says why it needs none; each one named is there."""
    named = re.findall(r"`(tests/[\w/]+\.py)::((?:\w+::)?test_\w+)`", row[-1])
    assert len(named) == row[-1].count("::test_"), "a name that is none"
    assert named or row[-2].startswith("does not apply: ")
    for file, name in named:
        assert name in names_in(ROOT / file), f"{file} has no {name}"


def names_in(path: Path) -> set[str]:
    """The tests of a module, as pytest names them."""
    found: set[str] = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        holder = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        for each in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(f"{holder}{each.name}")
    return found


def test_a_missing_row_would_be_noticed() -> None:
    """The document's tables are read: none of them is empty."""
    assert len(CHECKLIST) > 50
    assert len(list(rows(DOCUMENT.read_text("utf-8")))) > len(CHECKLIST)
