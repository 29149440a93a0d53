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


def find_damage(log: Path, index: Path, database: Path) -> Damage | None:
    """Tell whether commits lie behind the end that SQLite has found; it has just opened the log.

    Only what lies there is read whole: nothing, but for the last commit before a power cut.
    """
    try:
        with index.open("rb") as file:
            valid: int = struct.unpack("=I", file.read(20)[16:])[0]
        with log.open("rb") as file:
            size = log.stat().st_size
            commits = sum(_commits_behind(file, valid, size))
            if commits < ENOUGH or (not valid and _written_back(file, database, size)):
                return None
            return Damage(HEAD + valid * (FRAME_HEAD + _page_size(file)), commits)
    except (OSError, struct.error):
        # There is no log.
        return None


def _commits_behind(file: BinaryIO, valid: int, size: int) -> list[int]:
    """Count the commits of each row of frames whose sums follow from one another."""
    page = _page_size(file)
    order = _order(file)
    salts = _salts(file)
    runs = [0]
    before = b""  # the sum of the frame before
    for number in range(valid, (size - HEAD) // (FRAME_HEAD + page)):
        file.seek(HEAD + number * (FRAME_HEAD + page))
        head = file.read(FRAME_HEAD)
        if head[8:16] != salts:
            before = b""
        elif before and _sum(head[:8] + file.read(page), before, order) == head[16:]:
            runs[-1] += any(head[4:8])
            before = head[16:]
        else:
            runs.append(0)
            before = head[16:]
    return [run for run in runs if run >= ENOUGH]


def _written_back(file: BinaryIO, database: Path, size: int) -> bool:
    """Tell whether the database has each page as the log has it last, where that is to be read."""
    page = _page_size(file)
    salts = _salts(file)
    last: dict[int, int] = {}  # page: where its frame begins
    open_: dict[int, int] = {}  # of a transaction whose commit has not been seen
    pages = 0  # of the database, as the last commit says
    for offset in range(HEAD + FRAME_HEAD + page, size - page, FRAME_HEAD + page):
        file.seek(offset)
        head = file.read(FRAME_HEAD)
        if head[8:16] != salts:
            continue
        number, after = struct.unpack(">II", head[:8])
        open_[number] = offset
        if after:
            last |= open_
            open_, pages = {}, after
    with database.open("rb") as stored:
        for number, begin in last.items():
            if number <= pages:
                file.seek(begin + FRAME_HEAD)
                stored.seek((number - 1) * page)
                if file.read(page) != stored.read(page):
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
