"""What a setting is: a row read from a struct's field, and how its value is written and checked.

A section of settings is a frozen struct whose fields are annotated with `within` (a number: its
range and unit) or `about` (anything else). From these annotations come the rows that parsing,
checking and the shipped file use. A setting is live, which means that a reload changes it in the
running server, unless its annotation says `restart=True`. The module knows no file, no variable,
and no setting by name; every ValueError that it raises says what is wrong in one line.
"""

import difflib
import json
import math
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import msgspec

_SHOWN = 80  # characters of a bad value in an error
_SOME = 3  # names that are offered when none is near
_WRITABLE = 1 << 64  # beyond it str() of a number gets slow, and is refused at 4,300 digits


def within(low: float, high: float, unit: str, text: str, *, restart: bool = False) -> msgspec.Meta:
    """Describe a number: its range, both ends included, its unit and its meaning."""
    extra = {"unit": unit, "restart": restart}
    return msgspec.Meta(ge=low, le=high, description=text, extra=extra)


def about(text: str, *, restart: bool = False) -> msgspec.Meta:
    """Describe a setting that is no number."""
    return msgspec.Meta(description=text, extra={"unit": "", "restart": restart})


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting, as the annotation of its field describes it."""

    key: str  # "limits.line"
    kind: Any  # int, float, bool, str or tuple; str where there are choices
    default: Any
    unit: str
    text: str
    low: float | None  # of a number
    high: float | None
    choices: tuple[str, ...]  # empty: any
    restart: bool  # a change takes effect at the next start only

    def describe(self) -> str:
        """Say what it is, in which unit, what it may be, and when a change takes effect."""
        effect = "(restart)" if self.restart else "(live)"
        if self.choices:
            return f"{self.text} ({' | '.join(self.choices)}) {effect}"
        if self.low is None or self.high is None:
            return f"{self.text} {effect}"
        return f"{self.text} ({self.unit}, {self.low:.0f} to {self.high:.0f}) {effect}"


def rows(sections: Mapping[str, type[msgspec.Struct]]) -> Iterator[Setting]:
    """Read the structs into rows, in the order in which they are written."""
    for section, struct in sections.items():
        hints = typing.get_type_hints(struct, include_extras=True)
        defaults = msgspec.structs.asdict(struct())
        for name, hint in hints.items():
            kind, meta = typing.get_args(hint)
            choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
            yield Setting(
                key=f"{section}.{name}",
                kind=str if choices else typing.get_origin(kind) or kind,
                default=defaults[name],
                unit=meta.extra["unit"],
                text=meta.description,
                low=meta.ge,
                high=meta.le,
                choices=choices,
                restart=meta.extra["restart"],
            )


# Values


def checked(setting: Setting, raw: Any) -> Any:
    """Give a value, as TOML has it, in the setting's own type.

    Raises: ValueError when it is of another type, out of range, or none of the choices.
    """
    value = _KINDS[setting.kind](raw)
    if setting.choices and value not in setting.choices:
        choices = ", ".join(setting.choices)
        hint = nearest(value, setting.choices)
        raise ValueError(f"must be one of {choices}, not {shown(value)}{hint}")
    if setting.low is not None and setting.high is not None:
        _check_range(value, setting.low, setting.high, setting.unit)
    return value


def from_text(setting: Setting, text: str) -> Any:
    """Turn a plain text, as a variable has it, into what TOML would have given.

    A list is separated by commas. `checked` still has to look at the result.

    Raises: ValueError when the text cannot be of the setting's type.
    """
    if setting.kind is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    if setting.kind is bool:
        value = {"true": True, "false": False, "1": True, "0": False}.get(text.strip().lower())
        if value is None:
            raise ValueError(f"must be true or false, not {shown(text)}")
        return value
    if setting.kind is int:
        # The bound on the digits: int() of a text is quadratic, and refuses long ones by itself.
        if not re.fullmatch(r"[+-]?[0-9]{1,30}", text.strip()):
            raise ValueError(_no_integer(shown(text)))
        return int(text)
    if setting.kind is float:
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"must be a number, not {shown(text)}") from None
    return text


def _check_range(value: float, low: float, high: float, unit: str) -> None:
    # NaN is in no range: the comparison is written so that it fails here.
    if not low <= value <= high:
        raise ValueError(f"must be from {low:.0f} to {high:.0f} ({unit}), not {shown(value)}")


def _no_integer(text: str) -> str:
    return f"must be a whole number in plain digits, not {text}"


def _as_int(raw: Any) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int):
        raise ValueError(_no_integer(shown(raw)))
    return raw


def _as_float(raw: Any) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise ValueError(f"must be a number, not {shown(raw)}")
    try:
        return float(raw)
    except OverflowError:
        return math.inf


def _as_bool(raw: Any) -> bool:
    if not isinstance(raw, bool):
        raise ValueError(f"must be true or false, not {shown(raw)}")
    return raw


def _as_str(raw: Any) -> str:
    if not isinstance(raw, str):
        raise ValueError(f"must be a text in quotes, not {shown(raw)}")
    if "\0" in raw:
        raise ValueError("must not hold a NUL character")
    return raw


def _as_texts(raw: Any) -> tuple[str, ...]:
    if not isinstance(raw, list | tuple) or not all(isinstance(part, str) for part in raw):
        raise ValueError(f'must be a list of texts like ["a", "b"], not {shown(raw)}')
    return tuple(_as_str(part) for part in raw)


_KINDS: dict[Any, Callable[[Any], Any]] = {
    int: _as_int,
    float: _as_float,
    bool: _as_bool,
    str: _as_str,
    tuple: _as_texts,
}


# Texts


def template(sections: Mapping[str, type[msgspec.Struct]]) -> str:
    """Write a settings file in which every setting is commented out and has its default."""
    lines = [
        "# The settings of pushd. Each line that is commented out holds its default.",
        "# A reload (SIGHUP) changes what is (live); the rest takes effect at the next start.",
    ]
    for section, struct in sections.items():
        lines += ["", f"# {struct.__doc__}", f"[{section}]"]
        for setting in rows({section: struct}):
            name = setting.key.partition(".")[2]
            lines += ["", f"# {setting.describe()}", f"# {name} = {toml(setting.default)}"]
    return "\n".join(lines) + "\n"


def nearest(name: str, known: Iterable[str]) -> str:
    """Give the words that ask for the nearest right name, or nothing when none is near."""
    names = {candidate.lower(): candidate for candidate in known}
    # The same name in another section, or with no section, is nearer than any spelling.
    tail = name.lower().rpartition(".")[2]
    same = [key for key in names if key.rpartition(".")[2] == tail]
    found = same or difflib.get_close_matches(name.lower()[:_SHOWN], names, n=1)
    if found:
        return f", did you mean {names[found[0]]}?"
    some = _of_that_section(tail, names)
    return f", did you mean one of {', '.join(names[key] for key in some)}?" if some else ""


def _of_that_section(name: str, keys: Iterable[str]) -> list[str]:
    """Give the settings of the section that a name begins with, as queue_limit does: a few."""
    sections: dict[str, list[str]] = {}
    for key in keys:
        section, dot, _ = key.partition(".")
        if dot:
            sections.setdefault(section, []).append(key)
    first = name.partition("_")[0][:_SHOWN]
    near = difflib.get_close_matches(first, sections, n=1)
    found = sections[near[0]] if near else []
    return difflib.get_close_matches(name[:_SHOWN], found, n=_SOME, cutoff=0.0)


def one_line(text: str) -> str:
    """Escape what could break or fake a line of an error."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def shown(value: Any) -> str:
    """Show a value as it would be written, short and on one line."""
    text = one_line(value if isinstance(value, str) else toml(value)) or '""'
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def toml(value: Any) -> str:
    """Write a value as TOML does; what no setting can be, only so that it is recognised."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml(part) for part in value)}]"
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, int) and abs(value) >= _WRITABLE:
        return "a number of more than 64 bits"
    return str(value)
