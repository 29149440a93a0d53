"""The verbs that keep what people said: backup, restore, check, compact.

A backup is made by the running server, and a check too while there is one; both are jobs of the
server, which these verbs follow. A restore, and a check of a stopped server, work on the folder.
"""

import asyncio
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import click
from msgspec import to_builtins

from .. import config
from ..errors import ConfigError, PushdError
from ..log import escape
from .calls import Control, Fields, NotReached, Refused
from .options import (
    complete_file,
    complete_folder,
    data_option,
    escape_lines,
    fail,
    file_option,
    json_option,
    socket_of,
    socket_option,
    timeout_option,
)
from .progress import Progress
from .table import Line, size
from .verb import failures, pushctl, reading, verb

# Seconds between two looks at a job, and for an answer when it is to end.
LOOK = 0.2
STOP_TIMEOUT = 10


@verb("backup")
@click.argument("archive", metavar="FILE", shell_complete=complete_file)
def backup(control: Control, archive: str) -> Line:
    """Back the running server up into the new FILE; one that ends in gz is packed."""
    result = _follow(control, "backup", file=os.path.abspath(archive))
    if not os.path.exists(result["file"]) and os.access(os.path.dirname(result["file"]), os.X_OK):
        fail(
            f"{result['file']}: the server made it where it is not to be seen from here:"
            " its service has a folder of its own there, as systemd's PrivateTmp gives one"
        )
    text = f"{result['file']}: {size(result['bytes'])}, {result['files']} files"
    if result["damaged"]:
        click.echo(f"missing or damaged, and not in it: {result['damaged']} files", err=True)
        for name in result["names"]:
            click.echo(f"    {escape(name)}", err=True)
    return Line(text, result)


@pushctl.command()
@click.argument("archive", metavar="FILE", shell_complete=complete_file)
@click.option(
    "--data",
    metavar="DIR",
    shell_complete=complete_folder,
    help="The empty or new folder to restore to.",
)
@file_option
@json_option
def restore(*, archive: str, data: str | None, file: str | None, as_json: bool) -> None:
    """Make the data of a server that is stopped from the backup FILE."""
    from ..backup import restore as put_back

    os.umask(0o077)
    folder = _data(data, file)
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        bar.at(done)

    try:
        with Progress("restore", os.stat(archive).st_size) as bar:
            made = put_back(Path(archive), folder, now=_now, progress=progress)
    except PushdError as problem:
        fail(problem)
    except OSError as problem:
        fail(f"{problem.filename or folder}: {problem.strerror}")
    text = f"{folder}: restored as of {made.date}, {made.files} files"
    answer = Line(text, {"data": str(folder), **to_builtins(made)})
    click.echo(answer.json() if as_json else answer.text())


@pushctl.command()
@click.option(
    "--data",
    metavar="DIR",
    shell_complete=complete_folder,
    help="The folder of a server that is stopped.",
)
@file_option
@json_option
def compact(*, data: str | None, file: str | None, as_json: bool) -> None:
    """Give the disk back what messages took that are gone; of a server that is stopped."""
    from ..store.copy import compact as make_small

    folder = _data(data, file)
    try:
        before, after = make_small(folder)
    except PushdError as problem:
        fail(problem)
    answer = Line(f"{size(before)} before, {size(after)} now", {"before": before, "after": after})
    click.echo(answer.json() if as_json else answer.text())


@pushctl.command()
@socket_option
@data_option
@file_option
@timeout_option
@json_option
def check(
    *, socket_path: str | None, data: str | None, file: str | None, timeout: int, as_json: bool
) -> None:
    """Tell whether the store and its files are whole, of a server that runs or one that does not.

    Exits with 1 if they are not.
    """
    path = socket_of(socket_path, data, file)
    with failures():
        try:
            with Control(path, timeout) as control, reading(path):
                found = _follow(control, "check")
                shown, whole = _report(found, as_json)
        except NotReached:
            if socket_path is not None:
                raise
            shown, whole = _report(_check_stopped(_data(data, file)), as_json)
    click.echo(shown)
    sys.exit(0 if whole else 1)


def _report(found: Fields, as_json: bool) -> tuple[str, bool]:
    """Give what is shown of a check, and whether all was whole."""
    report = found["report"]
    shown = Line("", report).json() if as_json else escape_lines(found["text"])
    return shown, not report["found"]


def _check_stopped(folder: Path) -> Fields:
    """Check the folder of a server that does not run; exits if one does."""
    from .. import check as checks
    from ..jobs import Job
    from ..store.check import open_stopped

    class Shown(Job):
        def advance(self, done: int = 0) -> None:
            """Show how far it has come."""
            super().advance(done)
            bar.at(self.done, self.total)

    report = checks.Report()
    try:
        with open_stopped(folder) as checker, Progress("check") as bar:
            asyncio.run(checks.check(checker, folder, report, Shown("check")))
    except PushdError as problem:
        fail(problem)
    return {"report": to_builtins(report), "text": report.text()}


def _now() -> int:
    return time.time_ns() // 1_000_000


def _data(data: str | None, file: str | None) -> Path:
    try:
        return Path(config.load(file, {"server.data": data}, os.environ).server.data)
    except ConfigError as error:
        fail(error)


def _follow(control: Control, cmd: str, **fields: str) -> Fields:
    """Begin a job, wait for its end and give its result; an interrupt ends it.

    Exits when it failed.
    """
    number = 0  # not known yet
    try:
        job = control.call(cmd, **fields)
        number = job["number"]
        with Progress(cmd) as bar:
            while job["state"] == "running" and job["number"] == number:
                bar.at(job["done"], job["total"])
                time.sleep(LOOK)
                job = control.call("job")
    except KeyboardInterrupt:
        job = _stop(control.path, cmd, number)
    if number and job["number"] != number:
        fail("the server has begun another job since")
    if job["state"] != "done":
        fail(f"{job['job']}: {job['problem']}")
    result: Fields = job["result"]
    return result


def _stop(path: str, cmd: str, number: int) -> Fields:
    """End a job, which may just have been begun, and wait until it has."""
    # The old connection may be in the middle of an answer.
    with Control(path, STOP_TIMEOUT) as control:
        job: Fields = control.call("job")
        if job["job"] != cmd or (number and job["number"] != number):
            fail(f"{cmd}: interrupted")
        with suppress(Refused):  # when it has ended in this moment
            control.call("stop_job", number=job["number"])
        while job["state"] == "running":
            time.sleep(LOOK)
            job = control.call("job")
    return job
