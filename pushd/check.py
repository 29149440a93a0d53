"""Is a data folder whole? The store by its rules, the media folder by the store.

The check goes step by step, so that it can run beside a server and tell how far it has come. The
store and the folder are each looked at while they may change: what seems missing or too much is
looked at again before it is told. Nothing is repaired here.
"""

import asyncio
import os
from pathlib import Path

from msgspec import Struct, field

from .archive import problem_of
from .errors import StoreRefused
from .jobs import Job
from .media import PATH
from .store.check import MOST, Checker, Problem
from .store.copy import FileFact

FOLDERS = 256
# Files of which one step asks the store.
PAGE = 200
# The rest after a step, and how long a file may lie without its row, in seconds.
REST = 0.002
PATIENCE = 0.2


class Report(Struct):
    """What was looked at and what was found; `problems` holds some of each kind."""

    files: int = 0  # of the media folder that were read
    found: dict[str, int] = field(default_factory=dict)  # how many problems of a kind
    problems: list[Problem] = field(default_factory=list)

    def add(self, problem: Problem) -> None:
        """Note a problem; beyond some of its kind it is only counted."""
        count = self.found.get(problem.kind, 0)
        self.found[problem.kind] = count + 1
        if count < MOST:
            self.problems.append(problem)

    def text(self) -> str:
        """Give the report as people read it."""
        if not self.found:
            return f"the store and its {self.files} files are whole"
        lines = []
        for kind, count in self.found.items():
            lines.append(f"{kind}: {count}")
            lines += [f"    {problem.text}" for problem in self.problems if problem.kind == kind]
            if count > MOST:
                lines.append("    …")
        return "\n".join(lines)


async def check(checker: Checker, data: Path, report: Report, job: Job) -> None:
    """Look at all, filling in the report; raises Stopped when the job is to end."""
    checker.stop_when(lambda: job.stopping)
    job.stage = "store"
    job.total = await asyncio.to_thread(checker.total) + FOLDERS
    while (problems := await asyncio.to_thread(checker.step)) is not None:
        for problem in problems:
            report.add(problem)
        job.advance(1)
        await asyncio.sleep(REST)
    try:
        await _check_media(checker, data, report, job)
    except StoreRefused as problem:
        report.add(Problem("damaged", str(problem)))
    job.done = job.total


async def _check_media(checker: Checker, data: Path, report: Report, job: Job) -> None:
    job.stage = "files"
    after = ""
    while facts := await asyncio.to_thread(checker.files, after, PAGE):
        after = facts[-1].path
        for fact in facts:
            await _check_file(checker, data, fact, report)
            job.advance(1)
    job.stage = "folders"
    for number in range(FOLDERS):
        await _check_strays(checker, data, number, report)
        job.advance(1)


async def _check_file(checker: Checker, data: Path, fact: FileFact, report: Report) -> None:
    report.files += 1
    problem = await asyncio.to_thread(_look_at, data / fact.path, fact)
    # When its row went meanwhile, the file went with it.
    if problem is not None and not await asyncio.to_thread(checker.strays, [fact.path]):
        report.add(problem)


def _look_at(path: Path, fact: FileFact) -> Problem | None:
    if PATH.fullmatch(fact.path) is None:
        return Problem("a path that is not one of pushd", ascii(fact.path[:100]))
    try:
        with path.open("rb") as file:
            wrong = problem_of(file, fact)
    except FileNotFoundError:
        return Problem("a missing file", fact.path)
    except OSError as problem:
        return Problem("a file that cannot be read", f"{fact.path}: {problem.strerror}")
    return Problem("a wrong file", f"{fact.path} {wrong}") if wrong else None


async def _check_strays(checker: Checker, data: Path, number: int, report: Report) -> None:
    """Tell what lies in one of the folders and the store does not refer to."""
    for page in await asyncio.to_thread(_listed, data, f"media/{number:02x}"):
        strays = await asyncio.to_thread(checker.strays, page)
        if not strays:
            continue
        # A file lies here a moment before its row is committed, and after its row is gone.
        await asyncio.sleep(PATIENCE)
        for path in await asyncio.to_thread(checker.strays, strays):
            if await asyncio.to_thread((data / path).exists):
                report.add(Problem("a file too many", ascii(path)[1:-1]))


def _listed(data: Path, prefix: str) -> list[list[str]]:
    """List what is in a folder, in pages."""
    try:
        names = sorted(os.listdir(data / prefix))
    except (FileNotFoundError, NotADirectoryError):
        return []
    paths = [f"{prefix}/{name}" for name in names]
    return [paths[start : start + PAGE] for start in range(0, len(paths), PAGE)]
