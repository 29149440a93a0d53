"""Large files that are written beside a store which syncs: a little at a time.

Whoever syncs on a disk waits for what others have made dirty there. A gigabyte that is synced, or
freed, at once holds up the commits of the store for seconds; some megabytes for some ms.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

STEP = 4 << 20  # bytes that are written between two syncs
CUT = 64 << 20  # bytes that are freed at a time
REST = 0.01  # seconds between two cuts
LONGEST = 0.1  # seconds of a rest behind a sync


class Steady:
    """Syncs a file while it is written; give it the bytes that were."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._dirty = 0  # bytes since the last sync

    def wrote(self, count: int) -> None:
        """Take note of bytes that were written, and sync when there are enough."""
        self._dirty += count
        if self._dirty >= STEP:
            self._dirty = 0
            began = time.monotonic()
            os.fdatasync(self._descriptor)
            # The disk is the others' for as long as it was ours.
            time.sleep(min(time.monotonic() - began, LONGEST))


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
