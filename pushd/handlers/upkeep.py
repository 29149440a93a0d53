"""Backups and checks of a running server: an operator begins one as a job, and follows it."""

from functools import partial
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct, to_builtins

from ..backup import make
from ..check import Report, check
from ..commands import Command, Context, Needs, Request
from ..errors import BadField, Refusal
from ..jobs import Job
from ..model import Maybe, Natural
from ..session import Session
from ..status import Status
from ..store.check import Checker


class Backup(Request):
    """The fields of `backup`: the path of the new archive."""

    file: Annotated[str, Meta(max_length=4096)] | None = None


class StopJob(Request):
    """The fields of `stop_job`."""

    number: Natural | Maybe = None


class JobOut(Struct):
    """How far a job has come: `state` is none, running, done, failed or stopped."""

    number: int
    job: str
    state: str
    stage: str
    done: int
    total: int
    seconds: float
    problem: str
    result: dict[str, object]


async def backup(ctx: Context, session: Session, request: Backup) -> JobOut:
    """Begin a backup of store and files into a new archive."""
    if not request.file:
        raise BadField("file", "file is empty")
    target = Path(request.file)
    if not target.is_absolute():
        raise BadField("file", "file is a whole path")
    return _told(ctx.jobs.start("backup", partial(_backup, ctx, target)))


async def begin_check(ctx: Context, session: Session, request: Request) -> JobOut:
    """Begin a check of store and files."""
    return _told(ctx.jobs.start("check", partial(_check, ctx)))


async def look(ctx: Context, session: Session, request: Request) -> JobOut:
    """Tell how far the job has come that runs, or what became of the last one."""
    return _told(ctx.jobs.look())


async def stop_job(ctx: Context, session: Session, request: StopJob) -> JobOut:
    """End the job that runs; it removes what it has made."""
    job = ctx.jobs.look()
    if not ctx.jobs.running or request.number not in (None, "", job.number):
        raise Refusal(Status.NOT_FOUND, "no such job runs", field="number")
    ctx.jobs.cancel()
    return _told(job)


async def _backup(ctx: Context, target: Path, job: Job) -> None:
    await make(ctx.store, ctx.media, target, job, now=ctx.clock.wall)


async def _check(ctx: Context, job: Job) -> None:
    checker = Checker(ctx.store.folder, live=True)
    report = Report()
    try:
        await check(checker, ctx.store.folder, report, job)
    finally:
        checker.close()
    job.result = {"report": to_builtins(report), "text": report.text()}


def _told(job: Job) -> JobOut:
    return JobOut(
        job.number,
        job.name,
        job.state,
        job.stage,
        job.done,
        job.total,
        round(job.seconds, 1),
        job.problem,
        job.result,
    )


COMMANDS = (
    Command("backup", backup, Backup, Needs.OPERATOR, audit=("file",)),
    Command("check", begin_check, Request, Needs.OPERATOR, audit=()),
    Command("job", look, Request, Needs.OPERATOR),
    Command("stop_job", stop_job, StopJob, Needs.OPERATOR, audit=("number",)),
)
