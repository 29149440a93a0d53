"""Answers as people read them, aligned, and as programs do, in JSON.

Text of others is escaped, so that no name can move the cursor or break a row, and counted by the
columns that a terminal gives it: two for most Chinese characters, none for marks.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..log import escape
from .progress import counted

Fields = dict[str, Any]
Show = Callable[[Any], str]

GAP = "  "
# JSON escapes the controls of ASCII only; U+009B begins a command of a terminal as well.
_RAW = re.compile(r"[^ -~\n]")


@dataclass(slots=True)
class Listing:
    """A list; `columns` are the fields to show in a table, in their order."""

    entries: Iterable[Fields]
    columns: str
    shows: dict[str, Show] = field(default_factory=dict)  # how, where not as it is

    def text(self) -> str:
        """Give a table with a line of titles."""
        names = self.columns.split()
        entries = list(counted("fetched", self.entries))
        rows = [[_shown(one.get(name), self.shows.get(name)) for name in names] for one in entries]
        right = [
            bool(entries) and all(type(one.get(name)) in (int, float) for one in entries)
            for name in names
        ]
        return aligned([[title(name) for name in names], *rows], right)

    def json(self) -> str:
        """Give one array."""
        return json_text(list(counted("fetched", self.entries)))


@dataclass(slots=True)
class Record:
    """One thing with named values."""

    fields: Fields
    shows: dict[str, Show] = field(default_factory=dict)

    def text(self) -> str:
        """Give a line for each value."""
        rows = [
            [title(name).lower(), _shown(value, self.shows.get(name))]
            for name, value in self.fields.items()
        ]
        return aligned(rows, [False, False])

    def json(self) -> str:
        """Give one object."""
        return json_text(self.fields)


@dataclass(slots=True)
class Line:
    """What was done: a sentence for people, values for programs."""

    sentence: str
    fields: Fields

    def text(self) -> str:
        """Give the sentence."""
        return escape(self.sentence)

    def json(self) -> str:
        """Give one object."""
        return json_text(self.fields)


@dataclass(slots=True)
class Detail:
    """One thing with named values, and a list that belongs to it."""

    record: Record  # what people see of it
    listing: Listing
    fields: Fields  # what programs do

    def text(self) -> str:
        """Give a line for each value, and a table below."""
        return f"{self.record.text()}\n{self.listing.text()}"

    def json(self) -> str:
        """Give one object."""
        return json_text(self.fields)


Answer = Listing | Record | Line | Detail


def width(text: str) -> int:
    """Give the columns that a terminal gives to a text."""
    return sum(map(_columns, text))


def aligned(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """Put cells under each other; columns that are `right` end at one place."""
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            " " * (size - width(cell)) + cell if flag else cell + " " * (size - width(cell))
            for cell, size, flag in zip(row, widths, right, strict=True)
        ]
        lines.append(GAP.join(cells).rstrip())
    return "\n".join(lines)


def title(name: str) -> str:
    """Turn the name of a field into a title: `lastSeen` is LAST SEEN."""
    return re.sub(r"(?<=[a-z])([A-Z])", r" \1", name).upper()


def size(count: int) -> str:
    """Write bytes in the unit that people read: 12.3 MiB."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def duration(seconds: int) -> str:
    """Write seconds as people read them: 3d 4h, 2h 5m, 1m 7s."""
    parts = [
        (seconds // 86400, "d"),
        (seconds // 3600 % 24, "h"),
        (seconds // 60 % 60, "m"),
        (seconds % 60, "s"),
    ]
    while len(parts) > 1 and not parts[0][0]:
        parts.pop(0)
    return " ".join(f"{count}{unit}" for count, unit in parts[:2])


def _columns(char: str) -> int:
    if char.isascii():
        return 1
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _shown(value: Any, show: Show | None) -> str:
    if show is not None and value is not None:
        return show(value)
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(part, None)}" for key, part in value.items()) or "-"
    return escape(str(value))


def json_text(value: Any, indent: int | None = 2) -> str:
    """Write JSON that a terminal may show: what JSON would leave raw of controls is escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _RAW.sub(lambda found: found[0] if found[0].isprintable() else _ascii(found[0]), text)


def _ascii(char: str) -> str:
    return json.dumps(char)[1:-1]
