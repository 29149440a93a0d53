"""An event loop whose time is a number: when nothing is ready, it jumps to the next timer.

Nothing in it comes from outside: no file is looked at, no thread is asked. So two runs that begin
alike go alike. Tasks belong to a `Life`, one start of the server; to kill a life is to end all
its tasks at once, whatever they wait for.
"""

import asyncio
import contextvars
import selectors
from collections.abc import Callable, Mapping
from typing import Any

BEGIN = 1000.0  # seconds; 0.0 means "never" to some
LIFE: contextvars.ContextVar["Life | None"] = contextvars.ContextVar("life", default=None)


class Stuck(Exception):
    """Nothing will ever happen again."""


class Life:
    """One start of the server: what runs in its context dies with it."""

    def __init__(self) -> None:
        self.dead = False
        self.workers: list[Any] = []  # its connections to the database, the writer's first
        self.context = contextvars.copy_context()
        self.context.run(LIFE.set, self)
        self._tasks: dict[asyncio.Task[Any], None] = {}

    def take(self, task: "asyncio.Task[Any]") -> None:
        """Note a task that runs in this life."""
        self._tasks[task] = None
        task.add_done_callback(lambda task: self._tasks.pop(task, None))

    def kill(self) -> None:
        """End all tasks; idempotent."""
        self.dead = True
        for task in tuple(self._tasks):
            task.cancel()


class _Jump(selectors.BaseSelector):
    """Waits for nothing but time."""

    def __init__(self) -> None:
        self.now = BEGIN

    def register(self, fileobj: Any, events: int, data: Any = None) -> Any:
        """Note nothing: the loop's own pipe is never written to."""

    def unregister(self, fileobj: Any) -> Any:
        """Forget nothing."""

    def select(self, timeout: float | None = None) -> list[Any]:
        """Let time pass."""
        if timeout is None:
            raise Stuck
        self.now += max(timeout, 0.0)
        return []

    def get_map(self) -> Mapping[Any, Any]:
        """Give what is registered."""
        return {}


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop of a simulation."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)
        self.set_task_factory(_task)

    def time(self) -> float:
        """Give virtual seconds."""
        return self._jump.now

    def run_in_executor(
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        """Run it now, in no thread."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as problem:
            future.set_exception(problem)
        return future


def _task(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> "asyncio.Task[Any]":
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
    life = LIFE.get()
    if life is not None:
        life.take(task)
    return task
