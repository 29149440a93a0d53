"""The families of commands; the table that the server answers by is their rows put together."""

from collections.abc import Mapping

from ..commands import Command
from . import (
    account,
    data,
    file,
    friend,
    group,
    login,
    message,
    operator,
    push,
    search,
    terminal,
    top,
    trace,
    upkeep,
)

FAMILIES = (
    login,
    account,
    search,
    friend,
    group,
    message,
    file,
    data,
    terminal,
    operator,
    trace,
    push,
    upkeep,
    top,
)


def table() -> Mapping[str, Command]:
    """Put the rows of all families into one table, by name."""
    rows = [row for family in FAMILIES for row in family.COMMANDS]
    named = {row.name: row for row in rows}
    assert len(named) == len(rows), "two commands have one name"
    return named
