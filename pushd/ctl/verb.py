"""How a function becomes a verb of `pushctl`.

    @verb("users", limit_option)
    @click.argument("text", required=False)
    def users(control: Control, text: str | None, limit: int) -> Answer:
        \"\"\"List the users whose name or phone holds TEXT, or all of them.\"\"\"
        return Listing(control.entries("users", limit, text=text), "userId username")

The function gets an open control socket and its own arguments, and returns an answer, which is
printed as a table or as JSON. What it raises of `calls` becomes one line and an exit code.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import click

from .calls import Control, NotReached, Refused
from .options import (
    HELP,
    NOT_REACHED,
    data_option,
    fail,
    file_option,
    json_option,
    socket_of,
    socket_option,
    timeout_option,
    version,
)
from .table import Answer

Option = Callable[[Any], Any]


@click.group(context_settings=HELP)
@version("pushctl")
def pushctl() -> None:
    """Look at a pushd server, act on it, and talk to it."""


def verb(name: str, *options: Option) -> Callable[[Callable[..., Answer]], click.Command]:
    """Make a verb of a function of (control, arguments); `options` are those it has more."""

    def mark(function: Callable[..., Answer]) -> click.Command:
        @wraps(function)
        def run(
            *,
            socket_path: str | None,
            data: str | None,
            file: str | None,
            timeout: int,
            as_json: bool,
            **values: Any,
        ) -> None:
            path = socket_of(socket_path, data, file)
            with failures(), Control(path, timeout) as control, reading(path):
                answer = function(control, **values)
                text = answer.json() if as_json else answer.text()
            click.echo(text)

        shared = (socket_option, data_option, file_option, timeout_option, json_option)
        for option in reversed((*options, *shared)):
            option(run)
        return pushctl.command(name)(run)

    return mark


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Refuse answers that have not the shape that this version knows."""
    try:
        yield
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as bug:
        what = f"{type(bug).__name__}: {bug}"
        raise Refused(f"{path}: the answer is not as this pushctl knows it ({what})") from None


@contextmanager
def failures() -> Iterator[None]:
    """Turn what went wrong into one line on standard error and an exit code."""
    try:
        yield
    except NotReached as problem:
        fail(problem, NOT_REACHED)
    except Refused as problem:
        fail(problem)
