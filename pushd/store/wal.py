"""The write-ahead log as a file: whether what SQLite made of it at the start is all that was in it.

SQLite ends a log at the first frame whose sum is wrong. Behind a power cut that is right: what
follows was not synced, and nobody was told of it. But a byte that changed while the server was
stopped looks the same, and then confirmed messages go without a word, and their ids are given out
again. The two can be told apart. A commit is synced before the next one is written, so what was
not synced is one commit, or two if the server was killed before it: three behind a broken frame
have been confirmed.

Once all of it is in the database, the log is begun again at its front. If the power goes just then,
its first frame may be broken while the old ones are still behind it. Nothing is lost by that: what
they hold stands in the database.

The format is that of https://sqlite.org/walformat.html.
"""

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

HEAD = 32  # bytes before the first frame
FRAME_HEAD = 24  # bytes before each page
MAGIC = 0x377F0682
# Commits behind a broken frame that tell damage from a power cut.
ENOUGH = 3


class Damage(NamedTuple):
    """Where a log is broken, and how many commits at least lie behind that."""

    offset: int
    commits: int


class _Run(NamedTuple):
    """Frames whose sums follow from one another: the numbers of the first and the last."""

    first: int
    last: int
    commits: int


def find_damage(log: Path, index: Path, database: Path) -> Damage | None:
    """Tell whether commits lie behind the end that SQLite has found; it has just opened the log.

    Only what lies there is read whole: nothing, but for the last commit before a power cut.
    """
    try:
        with index.open("rb") as file:
            valid: int = struct.unpack("=I", file.read(20)[16:])[0]
        with log.open("rb") as file:
            runs = _runs_behind(file, valid, log.stat().st_size)
            if not runs or _written_back(file, runs[-1], database):
                return None
            offset = HEAD + valid * (FRAME_HEAD + _page_size(file))
            return Damage(offset, sum(run.commits for run in runs))
    except (OSError, struct.error):
        # There is no log.
        return None


def _runs_behind(file: BinaryIO, valid: int, size: int) -> list[_Run]:
    """Give the runs of frames behind the end that have enough commits."""
    page = _page_size(file)
    order = _order(file)
    salts = _salts(file)
    runs: list[_Run] = []
    before = b""  # the sum of the frame before
    for number in range(valid, (size - HEAD) // (FRAME_HEAD + page)):
        file.seek(HEAD + number * (FRAME_HEAD + page))
        head = file.read(FRAME_HEAD)
        if head[8:16] != salts:
            before = b""
            continue
        if before and _sum(head[:8] + file.read(page), before, order) == head[16:]:
            run = runs[-1]
            runs[-1] = run._replace(last=number, commits=run.commits + any(head[4:8]))
        else:
            # Nothing tells whether this one is whole.
            runs.append(_Run(number + 1, number, 0))
        before = head[16:]
    return [run for run in runs if run.commits >= ENOUGH]


def _written_back(file: BinaryIO, run: _Run, database: Path) -> bool:
    """Tell whether the database has each page as the last run has it.

    The new log begins at the front, so all that it covers comes before that run.
    """
    page = _page_size(file)
    last: dict[int, int] = {}  # page: where its frame begins
    open_: dict[int, int] = {}  # of a transaction whose commit has not been seen
    pages = 0  # of the database, as the last commit says
    for number in range(run.first, run.last + 1):
        offset = HEAD + number * (FRAME_HEAD + page)
        file.seek(offset)
        what, after = struct.unpack(">II", file.read(8))
        open_[what] = offset
        if after:
            last |= open_
            open_, pages = {}, after
    with database.open("rb") as stored:
        for what, offset in last.items():
            file.seek(offset + FRAME_HEAD)
            stored.seek((what - 1) * page)
            if what <= pages and file.read(page) != stored.read(page):
                return False
    return True


def _page_size(file: BinaryIO) -> int:
    file.seek(8)
    size: int = struct.unpack(">I", file.read(4))[0]
    # The head may be what is damaged.
    return size if size in (1 << bits for bits in range(9, 17)) else 4096


def _order(file: BinaryIO) -> str:
    """Give the order of bytes in which sums are made."""
    file.seek(0)
    magic = struct.unpack(">I", file.read(4))[0]
    if magic in (MAGIC, MAGIC + 1):
        return ">" if magic & 1 else "<"
    return "<" if sys.byteorder == "little" else ">"


def _salts(file: BinaryIO) -> bytes:
    """Give what the frames of this log hold, and those of earlier ones do not."""
    file.seek(0)
    head = file.read(HEAD)
    if _sum(head[:24], bytes(8), _order(file)) == head[24:]:
        return head[16:24]
    file.seek(HEAD + 8)
    return file.read(8)


def _sum(data: bytes, before: bytes, order: str) -> bytes:
    first, second = struct.unpack(">II", before)
    for one, other in _pairs(data, order):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    return struct.pack(">II", first, second)


def _pairs(data: bytes, order: str) -> Iterator[tuple[int, int]]:
    pairs: Iterator[tuple[int, int]] = struct.iter_unpack(f"{order}II", data)
    return pairs
