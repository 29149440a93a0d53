"""The verb that looks again and again."""

import sys
import time
from importlib.util import find_spec

import click

from .calls import Control
from .options import data_option, file_option, json_option, socket_of, socket_option, timeout_option
from .table import json_text
from .top import compare, text
from .verb import failures, pushctl, reading


@pushctl.command("top")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=2.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--count", type=click.IntRange(0), default=0, help="Look so often; 0 has no end.")
@click.option("--plain", is_flag=True, help="Print a table each time, without a screen.")
@socket_option
@data_option
@file_option
@timeout_option
@json_option
def top(
    *,
    interval: float,
    count: int,
    plain: bool,
    socket_path: str | None,
    data: str | None,
    file: str | None,
    timeout: int,
    as_json: bool,
) -> None:
    """Show rates, latencies, the devices that are behind and the longest queues.

    On a terminal that takes a screen of its own, if the extra `tui` is there. JSON is one object
    a line.
    """
    path = socket_of(socket_path, data, file)
    with failures(), Control(path, timeout) as control, reading(path):
        if plain or as_json or count or not _has_screen():
            _print(control, interval, count, as_json)
            return
        from .screen import Screen  # here: it needs an extra

        failure = Screen(lambda: control.call("top"), interval).run()
        if failure is not None:
            raise failure


def _has_screen() -> bool:
    return sys.stdout.isatty() and find_spec("textual") is not None


def _print(control: Control, interval: float, count: int, as_json: bool) -> None:
    """Print a view after each interval, until there were enough or somebody interrupts."""
    try:
        before, shown = control.call("top"), 0
        while not count or shown < count:
            time.sleep(interval)
            after = control.call("top")
            view = compare(before, after)
            before, shown = after, shown + 1
            if as_json:
                click.echo(json_text(view.fields(), None))
            else:
                click.echo(("\n\n" if shown > 1 else "") + text(view))
    except KeyboardInterrupt:
        return  # the usual way to leave
