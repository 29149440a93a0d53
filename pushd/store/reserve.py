"""Space set aside on the disk for the time when it is full.

Acks, logins and everything else that makes the store no larger must go on on a full disk, but
even they write to the log first. So a file of some MiB is kept beside the database. When the disk
is full it is given up; what needs space is refused until the file can be made again.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

# Seconds between two attempts to make the file again.
PAUSE = 1.0


class Reserve:
    """Keep `size` bytes of the disk in a file; 0 keeps none."""

    def __init__(self, path: Path, size: int, now: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._size = size
        self._now = now
        self._tried = 0.0  # when it was last tried to make the file again
        self.spent = False  # the disk is full and the file is gone

    def spend(self) -> None:
        """Give the space up, since the disk is full."""
        self.spent = True
        self._tried = self._now()
        self._remove()

    def refill(self) -> bool:
        """Set the space aside again; False while the disk has none, tried once a second."""
        now = self._now()
        if self.spent and now - self._tried < PAUSE:
            return False
        self._tried = now
        if not self._allocate():
            self._remove()
            self.spent = True
            return False
        self.spent = False
        return True

    def _remove(self) -> None:
        # Where it cannot be removed it gives nothing up, and the disk stays full.
        with suppress(OSError):
            self._path.unlink()

    def _allocate(self) -> bool:
        if not self._size:
            return True
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            os.posix_fallocate(file, 0, self._size)
        except OSError:
            return False
        finally:
            os.close(file)
        return True
