"""One long task at a time for the operator: begun by one request, followed and ended by others.

A request has one reply, so a long task is a job: it runs beside the connections whoever asked for
it, and tells how far it has come. Its work is done in threads, which cannot be cancelled: they
call `advance` now and then, and that raises once the job is to end. What a job has made by then it
removes itself.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog
from msgspec import Struct, field

from .errors import PushdError, Refusal
from .status import Status

log = structlog.get_logger("pushd.jobs")


class Stopped(Exception):
    """The job was asked to end."""


class Job(Struct):
    """How far a task has come, and what came of it; read by anybody, written by the task."""

    name: str  # "" when there was none yet
    number: int = 0  # counted from 1
    state: str = "running"  # then done, failed or stopped
    stage: str = ""  # what is being done, for people
    done: int = 0  # of `total`, in units of the task
    total: int = 0
    problem: str = ""  # why it failed, in one line
    seconds: float = 0.0  # that it took so far
    result: dict[str, object] = field(default_factory=dict)
    stopping: bool = False

    def advance(self, done: int = 0) -> None:
        """Note progress; raises Stopped when the job is to end. For threads, too."""
        self.done += done
        if self.stopping:
            raise Stopped


class Jobs:
    """The job that runs, or the last one."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.last = Job("", state="none")
        self._now = now
        self._began = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """True while a job is not finished."""
        return self._task is not None and not self._task.done()

    def start(self, name: str, work: Callable[[Job], Awaitable[None]]) -> Job:
        """Begin a job; raises Refusal 4006 while another one runs."""
        if self.running:
            raise Refusal(Status.LIMIT_REACHED, f"a {self.last.name} is running")
        self.last = job = Job(name, self.last.number + 1)
        self._began = self._now()
        self._task = asyncio.get_running_loop().create_task(self._run(job, work), name=name)
        return job

    def look(self) -> Job:
        """Give the job that runs, or the last one."""
        if self.running:
            self.last.seconds = self._now() - self._began
        return self.last

    def cancel(self) -> None:
        """Ask the job to end; it does soon. Idempotent."""
        self.last.stopping = True

    async def close(self) -> None:
        """End the job and wait until it has removed what it made."""
        self.cancel()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self, job: Job, work: Callable[[Job], Awaitable[None]]) -> None:
        log.info("job begun", job=job.name)
        try:
            await work(job)
            job.state = "done"
        except Stopped:
            job.state, job.problem = "stopped", "it was stopped"
        except (PushdError, OSError) as problem:
            job.state, job.problem = "failed", _line(problem)
        except Exception as bug:
            job.state, job.problem = "failed", "an internal error, see the log"
            log.error("internal error", where=job.name, exc_info=bug)
        job.seconds = self._now() - self._began
        tell = log.info if job.state == "done" else log.warning
        tell("job ended", job=job.name, state=job.state, problem=job.problem, **job.result)


def _line(problem: BaseException) -> str:
    if isinstance(problem, OSError) and problem.strerror:
        where = f"{problem.filename}: " if problem.filename else ""
        return f"{where}{problem.strerror}"
    return " ".join(str(problem).split())
