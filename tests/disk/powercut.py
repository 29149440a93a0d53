"""Cut the power at any instant of a run, and check that all that was confirmed is there.

    python -m tests.disk.powercut --runs 20 --images 250

Each run is one real server under strace while a few people work (`tests.disk.load`): first start,
work, a SIGKILL or a stop, a second start, more work, a stop. From the calls that it made the files
are rebuilt as a power cut may leave them at an instant (`tests.disk.files`): what was synced is
certain, of the rest anything may be there. Every image is opened by the server's own recovery and
checked for what had been confirmed by then (`tests.disk.facts`); a few are given to a real server.
Most instants lie around syncs and behind confirmations, where it matters. Every confirmation also
gets the hardest image: only what was synced.

Controls are runs whose syncs are left out in part; the same checks must find losses in each:
`synchronous` OFF and NORMAL, syncs that do nothing (eatmydata), and syncs of folders that do
nothing. Exit code 1 if there is a violation, or a control is not caught.
"""

import argparse
import asyncio
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.conformance.process import Process
from tests.disk.attempts import SCRATCH, patient
from tests.disk.facts import Transcript
from tests.disk.files import MODES, Disk, Mode
from tests.disk.images import examine_and_remove, examine_served
from tests.disk.load import Company
from tests.disk.order import follow
from tests.disk.traced import Call, Traced, obstacle
from tests.model.record import conclude

RUNS = 20
IMAGES = 250
STEPS = 30  # things that each device does in each of the two lives of a server
SERVED = 3  # images of a run that a real server is started on
# Images whose checks wait at most; each is some MiB on the disk.
WAITING = 16
CONFIRMING = ("sendto", "sendmsg", "write", "writev")


@dataclass(frozen=True)
class Control:
    """A server whose syncs are not what they should be."""

    name: str
    launcher: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()  # syncs of such paths did nothing


LAUNCHER = ("-m", "tests.disk.launcher")
CONTROLS = (
    Control("synchronous=OFF", LAUNCHER, {"LOOSE": "OFF"}),
    Control("synchronous=NORMAL", LAUNCHER, {"LOOSE": "NORMAL"}),
    Control("eatmydata", environment={"LD_PRELOAD": "libeatmydata.so"}),
    Control("no sync of folders", skipped=("folder",)),
)


@dataclass
class Totals:
    """What all runs came to."""

    runs: int = 0
    images: int = 0
    served: int = 0
    instants: int = 0
    syncs: int = 0
    messages: int = 0  # confirmations that were followed to their sync
    files: int = 0
    confirmed: int = 0  # facts that were held against images
    violations: list[str] = field(default_factory=list)
    bad: int = 0  # images with a violation
    kinds: Counter[str] = field(default_factory=Counter)


async def play(process: Traced, seed: int, steps: int) -> None:
    """Let people work on a server through two of its lives."""
    rng = random.Random(seed)
    company = Company(process.dial, seed)
    await asyncio.to_thread(process.start)
    await company.set_up()
    killed = rng.random() < 0.5
    working = asyncio.create_task(company.work(steps))
    if killed:
        await asyncio.sleep(rng.uniform(0.2, 1.0))
        await asyncio.to_thread(process.kill)
    await working
    if not killed:
        await asyncio.to_thread(process.stop)
    await asyncio.to_thread(process.start)
    await company.resume()
    await company.work(steps // 2)
    await company.take_in()
    process.dial.close()
    await asyncio.to_thread(process.stop)


def recorded(
    folder: Path, seed: int, control: Control | None = None, steps: int = STEPS
) -> list[Call]:
    """Make a run in an empty folder and give the calls of its server."""
    rng = random.Random(seed)
    control = control or Control("")
    process = Traced(
        folder,
        launcher=control.launcher,
        environment=control.environment,
        loop=rng.choice(("asyncio", "uvloop")),
        store_checkpoint_pages=rng.choice((5, 20, 100)),
        store_reserve=0,
        store_young_rows=rng.choice((4, 64)),
        store_young_chats=rng.choice((4, 64)),
    )
    try:
        asyncio.run(play(process, seed, steps))
    finally:
        process.kill()
    calls = process.calls()
    if "folder" in control.skipped:
        calls = [call for call in calls if not is_folder_sync(call)]
    return calls


def is_folder_sync(call: Call) -> bool:
    """Tell whether a call syncs a folder."""
    return call.name in ("fsync", "fdatasync") and Path(call.what).is_dir()


class Replay:
    """A trace as a row of instants; images are made while it is gone through."""

    def __init__(self, folder: Path, calls: list[Call]) -> None:
        self.disk = Disk(folder)
        self.calls = calls
        self.transcript = Transcript(calls)
        # A call has a beginning and an end; both are instants.
        self.steps: list[tuple[int, int, Call]] = []
        for call in calls:
            self.steps.append((call.begin, 0, call))
            self.steps.append((call.end, 1, call))
        self.steps.sort(key=lambda step: step[:2])
        self.syncs = [
            number
            for number, (_, part, call) in enumerate(self.steps)
            if part and call.name in ("fsync", "fdatasync") and call.result == 0
        ]
        answers = {exchange.answered for exchange in self.transcript.exchanges}
        self.answers = [
            number
            for number, (line, part, call) in enumerate(self.steps)
            if not part and line in answers and call.name in CONFIRMING
        ]

    def instants(self, count: int, rng: random.Random) -> list[int]:
        """Choose instants: behind confirmations, around syncs, and anywhere."""
        last = len(self.steps) - 1
        chosen = []
        for _ in range(count):
            draw = rng.random()
            if draw < 0.4 and self.answers:
                near = rng.choice(self.answers) + rng.choice((0, 0, 1))
            elif draw < 0.8 and self.syncs:
                near = rng.choice(self.syncs) + rng.randint(-3, 2)
            else:
                near = rng.randint(0, last)
            chosen.append(min(max(near, 0), last))
        return sorted(chosen)

    def go(self, instants: list[int]) -> Iterator[int]:
        """Go through the trace; gives the line where each instant is reached."""
        waiting = list(reversed(instants))
        for number, (line, part, call) in enumerate(self.steps):
            if part:
                self.disk.finish(call)
            else:
                self.disk.begin(call)
            while waiting and waiting[-1] == number:
                waiting.pop()
                yield line


class Examiner:
    """Checks images in processes beside this one, a bounded number at a time."""

    def __init__(self, pool: ProcessPoolExecutor, totals: Totals, name: str) -> None:
        self._pool = pool
        self._totals = totals
        self._name = name
        self._open: list[tuple[str, Future[list[str]]]] = []

    def hand_in(self, folder: Path, replay: Replay, line: int, what: str) -> None:
        """Have an image checked; its folder goes."""
        facts = replay.transcript.facts(line)
        self._totals.images += 1
        self._totals.confirmed += len(facts.values) + len(facts.places)
        while len(self._open) >= WAITING:
            self._collect()
        self._open.append((what, self._pool.submit(examine_and_remove, folder, facts)))

    def follow(self, replay: Replay) -> None:
        """Count a run, and check the order of its syncs and confirmations."""
        totals = self._totals
        totals.runs += 1
        totals.syncs += len(replay.syncs)
        totals.instants += len(replay.steps)
        order = follow(replay.calls, replay.transcript)
        totals.messages += order.messages
        totals.files += order.files
        for early in order.early:
            self.note("order", [early])

    def serve(self, folder: Path, replay: Replay, line: int, what: str) -> None:
        """Have an image checked by a real server; its folder goes."""
        self._totals.served += 1
        process = Process(folder, store_reserve=0)
        try:
            found = asyncio.run(examine_served(process, replay.transcript.facts(line)))
        finally:
            process.kill()
            shutil.rmtree(folder)
        self.note(f"{what}, served", found)

    def finish(self) -> None:
        """Wait for all checks."""
        while self._open:
            self._collect()

    def _collect(self) -> None:
        what, future = self._open.pop(0)
        self.note(what, future.result())

    def note(self, what: str, problems: list[str]) -> None:
        """Note what was found in an image."""
        if problems:
            self._totals.bad += 1
            self._totals.kinds[problems[0].partition(":")[0].split(" ")[0]] += 1
            found = f"{self._name}, {what}: {problems[0]} ({len(problems)} in all)"
            self._totals.violations.append(found)


def run(
    seed: int,
    images: int,
    pool: ProcessPoolExecutor,
    totals: Totals,
    control: Control | None = None,
    served: int = SERVED,
) -> None:
    """Record one run and check images of it."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as name:
        folder, scratch = Path(name) / "run", Path(name) / "images"
        folder.mkdir()
        scratch.mkdir()
        replay = Replay(folder, recorded(folder, seed, control))
        examiner = Examiner(pool, totals, f"seed {seed}")
        check_images(replay, examiner, scratch, images, random.Random(seed), served)


def check_images(
    replay: Replay,
    examiner: Examiner,
    scratch: Path,
    images: int,
    rng: random.Random,
    served: int = 0,
) -> None:
    """Check images of a run, a quarter of them the hardest ones behind confirmations."""
    examiner.follow(replay)
    hard = set(rng.sample(replay.answers, min(len(replay.answers), images // 4)))
    instants = sorted([*hard, *replay.instants(images - len(hard), rng)])
    asked = set(rng.sample(range(images), min(served, images)))
    for number, line in enumerate(replay.go(instants)):
        mode: Mode = "none" if instants[number] in hard else rng.choice(MODES)
        image = scratch / str(number)
        # What a process makes lies in `data` in its folder.
        (image / "data").mkdir(parents=True)
        replay.disk.image(image, mode, rng)
        what = f"line {line} {mode}"
        if number in asked:
            whole = scratch / f"served {number}"
            shutil.copytree(image, whole)
            examiner.serve(whole, replay, line, what)
        examiner.hand_in(image / "data", replay, line, what)
    examiner.finish()


def controls(seed: int, images: int, pool: ProcessPoolExecutor) -> dict[str, Totals]:
    """Run each control once."""
    found = {}
    for control in CONTROLS:
        found[control.name] = totals = Totals()
        run(seed, images, pool, totals, control, served=0)
    return found


def verdict(totals: Totals) -> str:
    """Say whether a control was caught."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in totals.kinds.most_common(3))
    caught = "caught" if totals.bad else "NOT CAUGHT"
    return f"{caught}: {totals.bad} of {totals.images} images bad ({kinds})"


def main() -> int:
    """Run from the command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.disk.powercut", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--images", type=int, default=IMAGES, help="of each run")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--controls", type=int, default=40, help="images of each control; 0 none")
    options = parser.parse_args()
    if missing := obstacle():
        parser.error(missing)
    patient()
    print(f"seed          {options.seed}")
    totals, began = Totals(), time.monotonic()
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for number in range(options.runs):
            run(options.seed + number, options.images, pool, totals)
        checked = {}
        if options.controls:
            checked = controls(options.seed, options.controls, pool)
    figures = {
        "runs": totals.runs,
        "power-cut images": totals.images,
        "of them started as a server": totals.served,
        "instants to choose from": totals.instants,
        "syncs": totals.syncs,
        "messages followed to their own sync": totals.messages,
        "files followed to theirs": totals.files,
        "facts held against images": totals.confirmed,
        "images with a violation": totals.bad,
        "seconds": round(time.monotonic() - began),
    }
    verdicts = {name: verdict(found) for name, found in checked.items()}
    return conclude("powercut", figures, totals.violations, verdicts)


if __name__ == "__main__":
    sys.exit(main())
