"""How the nouns of the store turn functions on a connection into verbs that one can await.

A method marked `writes` runs in the writer's thread inside the transaction of its batch and gets
the Journal; one marked `reads` runs on a read-only connection and gets that. Both are called from
the loop, without that first argument. If a writing verb's next argument is an Actor, the verb is
refused with 11001 once that login was revoked by an operation committed before it.
"""

import sqlite3
from collections.abc import Callable, Coroutine
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from ..clock import Clock, Dates
from ..model import Actor
from .engine import Worker
from .journal import Journal
from .writer import Writer

P = ParamSpec("P")
R = TypeVar("R")
N = TypeVar("N", bound="Noun")


class Noun:
    """A family of verbs on one store."""

    def __init__(
        self, writer: Writer, readers: tuple[Worker, ...], clock: Clock, dates: Dates
    ) -> None:
        self.writer = writer
        self.readers = readers  # the first ones for what is quick, the last for what is long
        self.clock = clock
        self.dates = dates


def writes(
    *, grows: bool = True
) -> Callable[
    [Callable[Concatenate[N, Journal, P], R]], Callable[Concatenate[N, P], Coroutine[Any, Any, R]]
]:
    """Mark a writing verb; one that does not `grow` the store goes on while the disk is full."""

    def mark(
        function: Callable[Concatenate[N, Journal, P], R],
    ) -> Callable[Concatenate[N, P], Coroutine[Any, Any, R]]:
        @wraps(function)
        async def verb(noun: N, /, *args: P.args, **kw: P.kwargs) -> R:
            actor = args[0] if args and isinstance(args[0], Actor) else None

            def change(journal: Journal) -> R:
                return function(noun, journal, *args, **kw)

            return await noun.writer.call(change, actor=actor, grows=grows)

        return verb

    return mark


def reads(
    *, long: bool = False
) -> Callable[
    [Callable[Concatenate[N, sqlite3.Connection, P], R]],
    Callable[Concatenate[N, P], Coroutine[Any, Any, R]],
]:
    """Mark a reading verb; a `long` one keeps off the connection that quick ones use."""

    def mark(
        function: Callable[Concatenate[N, sqlite3.Connection, P], R],
    ) -> Callable[Concatenate[N, P], Coroutine[Any, Any, R]]:
        @wraps(function)
        async def verb(noun: N, /, *args: P.args, **kw: P.kwargs) -> R:
            worker = noun.readers[-1 if long else 0]
            return await worker.run(partial(_swap, function, noun), *args, **kw)

        return verb

    return mark


def _swap(
    function: Callable[..., R], noun: Noun, db: sqlite3.Connection, *args: Any, **kw: Any
) -> R:
    return function(noun, db, *args, **kw)
