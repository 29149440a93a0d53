"""Large files that are written beside a store which syncs: a little at a time.

Whoever syncs on a disk waits for what others have made dirty there. A gigabyte that is synced, or
freed, at once holds up the commits of the store for seconds; some megabytes for some ms. Between
two steps whoever writes rests for as long as the step took.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

STEP = 4 << 20  # bytes that are written between two syncs
CUT = 64 << 20  # bytes that are freed at a time
REST = 0.01  # seconds between two cuts
LONGEST = 0.1  # seconds of a rest behind a step


class Steady:
    """Syncs a file while it is written; give it the bytes that were."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._dirty = 0  # bytes since the last sync
        self._began = time.monotonic()  # when they began to be written

    def wrote(self, count: int) -> None:
        """Take note of bytes that were written, and sync when there are enough."""
        self._dirty += count
        if self._dirty >= STEP:
            self._dirty = 0
            os.fdatasync(self._descriptor)
            # Processor and disk are the others' for as long as they were ours.
            time.sleep(min(time.monotonic() - self._began, LONGEST))
            self._began = time.monotonic()


def remove(path: Path) -> None:
    """Remove a file bit by bit, if it is there; what cannot be removed stays."""
    with suppress(OSError):
        size = path.stat().st_size
        while size > CUT:
            size -= CUT
            os.truncate(path, size)
            time.sleep(REST)
    with suppress(OSError):
        path.unlink()
