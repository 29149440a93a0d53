"""A server on which one call of a script is made to fail, and what came of it.

An attempt copies a store, starts a server on it under strace with a fault, plays the script, ends
the server, and looks at what is on the disk by `tests.disk.images` and `tests.disk.facts`.
"""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conformance import process as processes
from tests.conformance.process import Process
from tests.disk.facts import Transcript, judge_messages
from tests.disk.images import examine, examine_served
from tests.disk.script import BROKEN, Script
from tests.disk.traced import FILES, SOCKETS, Call, Traced, read

# What a server may log at these levels tells of the fault; nothing else may be there.
LOUD = ("level=error", "level=critical")


# Shared memory makes the many small syncs of recoveries quick.
SCRATCH = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@dataclass
class Outcome:
    """What came of a fault."""

    fault: str
    started: bool = True
    done: int = 0  # steps of the script that succeeded
    code: int | None = None  # with which the server ended; None if it was alive until it was told
    internal: int = 0  # answers with 5000
    refused: Counter[int] = field(default_factory=Counter)  # other refusals by status
    stopped: int = 0  # with which it ended when it was told to
    unsynced: bool = False  # a sync of commits failed
    lines: list[str] = field(default_factory=list)  # of the log that tell of it
    problems: list[str] = field(default_factory=list)  # violations


def template(folder: Path, **settings: Any) -> Path:
    """Make a store as a first start leaves it; gives the folder of its server."""
    process = Process(folder, **settings)
    process.start()
    assert process.stop() == 0
    return folder


def count_calls(source: Path | None, scratch: Path, **settings: Any) -> dict[str, int]:
    """Count, without a fault, how often a thread makes each call at most."""
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        process = _prepared(Path(name), source, (), settings)
        asyncio.run(_play(process, Outcome("")))
        process.stop()
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for line in process.traces[0].read_text().splitlines():
            thread, _, rest = line.partition(" ")
            name = rest.strip().partition("(")[0]
            counts[name][thread] += 1
    return {name: max(found.values()) for name, found in counts.items() if name.isalnum()}


def attempt(
    source: Path | None,
    fault: str,
    scratch: Path,
    *,
    served: bool = False,
    name: str = "",
    between: Callable[[Path], None] = lambda folder: None,
    **settings: Any,
) -> Outcome:
    """Play the script on a server with a fault, on a copy of a store or in an empty folder.

    `name` is what a fault that is not strace's is called. `between` is called when the server has
    ended, with its folder.
    """
    outcome = Outcome(name or fault)
    with tempfile.TemporaryDirectory(dir=scratch) as place:
        folder = Path(place)
        process = _prepared(folder, source, (fault,) if fault else (), settings)
        try:
            script = asyncio.run(_play(process, outcome))
            outcome.code = process.process.poll() if process.process else None
            if outcome.started and outcome.code is None:
                outcome.stopped = process.stop()
        finally:
            process.kill()
        between(folder)
        _look(process, script, outcome, served=served)
    return outcome


def _prepared(
    folder: Path, source: Path | None, inject: tuple[str, ...], settings: dict[str, Any]
) -> Traced:
    if source is not None:
        shutil.copytree(source / "data", folder / "data")
    names = {fault.partition(":")[0] for fault in inject} - set(FILES.split(","))
    trace = ",".join([FILES, SOCKETS, *names])
    return Traced(folder, inject=inject, trace=trace, **{"store_reserve": 0, **settings})


async def _play(process: Traced, outcome: Outcome) -> Script:
    script = Script(process.dial)
    try:
        await asyncio.to_thread(process.start)
    except RuntimeError:
        outcome.started = False
        return script
    try:
        await script.play()
    finally:
        process.dial.close()
    outcome.done, outcome.internal = script.done, script.internal
    outcome.refused = Counter(reply["status"] for reply in script.refused)
    if script.gone:
        # It ends, or it has closed a connection that was not logged in.
        await _ends_or_answers(process, outcome)
    return script


async def _ends_or_answers(process: Traced, outcome: Outcome) -> None:
    assert process.process is not None
    try:
        await asyncio.to_thread(process.process.wait, 5)
    except subprocess.TimeoutExpired:
        try:
            await (await process.dial()).fence()
        except BROKEN as problem:
            outcome.problems.append(f"it neither ends nor answers: {problem!r}")
        finally:
            process.dial.close()


@contextmanager
def bench(**settings: Any) -> Iterator[tuple[Path, Path]]:
    """Give a store as a first start leaves it, and a folder to work in; servers may be slow."""
    patient()
    with tempfile.TemporaryDirectory(dir=SCRATCH) as name:
        made = Path(name) / "made"
        made.mkdir()
        yield template(made, **settings), Path(name)


def patient() -> None:
    """Give servers time on a machine that does much else."""
    processes.START_PATIENCE = processes.STOP_PATIENCE = 120.0


def _look(process: Traced, script: Script, outcome: Outcome, *, served: bool) -> None:
    lines = process.log_text().splitlines()
    outcome.lines = [line for line in lines if any(level in line for level in LOUD)]
    strange = [line for line in lines if not line.startswith("ts=")]
    if outcome.started and strange:
        outcome.problems.append(f"not a line of the log: {strange[-1]}")
    with process.traces[0].open() as file:
        calls, _ = read(file)
    outcome.unsynced = unsynced(calls)
    transcript = Transcript(calls)
    facts = transcript.facts(len(calls) << 30)
    push_ids = {name: wire.push_id for name, wire in script.wires.items()}
    devices = {
        text: tuple(push_ids[name] for name in names if push_ids.get(name))
        for text, names in script.expected.items()
    }
    if served:
        again = Process(process.folder)
        outcome.problems += asyncio.run(examine_served(again, facts))
        again.kill()
    else:
        process.data.mkdir(exist_ok=True)
        outcome.problems += examine(process.data, facts)
    outcome.problems += judge_messages(process.data, transcript, devices)


def unsynced(calls: list[Call]) -> bool:
    """Tell whether a sync of the log failed that had something new to sync.

    Those before the log is written back sync what is synced already, and those of the database
    behind it may fail as well: what the log holds stays in use until one has succeeded.
    """
    fresh = False
    for call in calls:
        if call.what.endswith("-wal"):
            if call.name == "fdatasync" and call.injected and fresh:
                return True
            fresh = call.name == "pwrite64" or (fresh and call.name != "fdatasync")
    return False
