"""On which line of a TOML text each key stands, which `tomllib` does not tell.

A small scan beside the parser, only for error messages: of a text that has been parsed it finds
headers, keys (bare, quoted and dotted ones) and the keys of inline tables, and steps over all
values. It never guesses: from the first place on that it does not understand it knows nothing.
What is in an array of tables is left out, for such keys are there more than once.
"""

import re
import tomllib
from collections.abc import Iterator
from contextlib import suppress

# "limits.line" is ("limits", "line").
Path = tuple[str, ...]

DEEP = 8  # parts of a path; what is deeper is no setting, and not told of

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
_KEY = re.compile(rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*")
_SPACE = re.compile(r"[ \t]*")
_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_REST_OF_LINE = re.compile(r"[^\n#]*(?:#[^\n]*)?(?:\n|\Z)")
_HEADER = re.compile(rf"(\[\[?)[ \t]*({_KEY.pattern})[ \t]*\]\]?")
# The longest quotes first; a text of three may end in up to two quotes of its own.
_TEXT = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
# A number, a date with its time, true, nan, …
_WORD = re.compile(r"[A-Za-z0-9_+.:-]+(?: [0-9][0-9:.]+)?")


def lines_of(text: str) -> dict[Path, int]:
    """Give the line, from 1 on, of each key and table; `text` is one that `tomllib` takes."""
    scan = _Scan(text)
    with suppress(_Lost, RecursionError):  # what was found before is right
        scan.document()
    return scan.found


class _Lost(Exception):
    """The text is not what was expected here."""


class _Scan:
    def __init__(self, text: str) -> None:
        self.found: dict[Path, int] = {}
        self._text = text
        self._at = 0  # the next character
        self._arrays: set[Path] = set()  # arrays of tables so far
        # How far lines are counted, and the line there: each character is looked at once.
        self._counted, self._line = 0, 1

    def document(self) -> None:
        """Read headers and pairs until the end."""
        table: Path | None = ()
        while self._skip(_BLANK) < len(self._text):
            line = self._line_here()
            if self._text[self._at] == "[":
                header = self._take(_HEADER)
                path = _split(header[2])
                table = None if header[1] == "[[" or self._repeated(path) else path
                if not self._repeated(path):
                    self._note(path, 0, line)
                if header[1] == "[[":
                    self._arrays.add(path)
            else:
                self._pair(table)
            self._take(_REST_OF_LINE)

    def _repeated(self, path: Path) -> bool:
        """Tell whether a table is, or is in, one of several of that name."""
        return any(path[:end] in self._arrays for end in range(1, min(len(path), DEEP) + 1))

    def _pair(self, table: Path | None) -> None:
        """Read a key, =, and a value, below a table; None is one that is not told of."""
        line = self._line_here()
        parts = _split(self._take(_KEY)[0])
        self._skip(_SPACE)
        self._expect("=")
        self._skip(_SPACE)
        path = None if table is None else (*table, *parts)
        if path is not None:
            self._note(path, len(path) - len(parts), line)
        self._value(path)

    def _value(self, path: Path | None) -> None:
        first = self._text[self._at : self._at + 1]
        if first == "{":
            self._inside("{", "}", path)
        elif first == "[":
            self._inside("[", "]", None)
        elif first in ('"', "'"):
            self._take(_TEXT)
        else:
            self._take(_WORD)

    def _inside(self, opens: str, closes: str, path: Path | None) -> None:
        """Read an inline table, or an array, to its end."""
        self._expect(opens)
        while self._skip(_BLANK) < len(self._text) and self._text[self._at] != closes:
            if opens == "{":
                self._pair(path)
            else:
                self._value(None)
            self._skip(_BLANK)
            if self._text[self._at : self._at + 1] != closes:
                self._expect(",")
        self._expect(closes)

    def _note(self, path: Path, known: int, line: int) -> None:
        """Note a path, and each that it implies beyond its first parts, when it comes first."""
        for end in range(known + 1, min(len(path), DEEP) + 1):
            self.found.setdefault(path[:end], line)

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def _skip(self, pattern: re.Pattern[str]) -> int:
        self._at = self._take(pattern).end()
        return self._at

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str]:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise _Lost
        self._at = match.end()
        return match

    def _expect(self, char: str) -> None:
        if self._text[self._at : self._at + 1] != char:
            raise _Lost
        self._at += 1


def _split(key: str) -> Path:
    """Take a key apart as TOML does, with its quotes and escapes."""
    try:
        return tuple(_names(tomllib.loads(f"{key} = 0")))
    except ValueError:
        raise _Lost from None


def _names(table: object) -> Iterator[str]:
    while isinstance(table, dict):
        [(name, table)] = table.items()
        yield name
