"""Run pushd on a disk that is not to be trusted, for faults and negative controls.

    LOOSE=NORMAL python -m tests.disk.launcher --data …     # or OFF: PRAGMA synchronous
    FAILING_OPEN=EMFILE:3 …                                 # the third opening of a file fails
    DEAF=1 …                                                # a failed sync is simply tried again

The product has no such settings; what is changed is changed here.
"""

import builtins
import errno
import io
import os
import sqlite3
from typing import Any

from pushd.cli import pushd
from pushd.store import journal

LOOSE = os.environ.get("LOOSE", "FULL")
FAILING_OPEN = os.environ.get("FAILING_OPEN", "")

_connect = sqlite3.connect
_os_open = os.open
_io_open = io.open


class Loose(sqlite3.Connection):
    """A connection that syncs as `LOOSE` says."""

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """Execute a statement."""
        if sql.startswith("PRAGMA synchronous="):
            sql = f"PRAGMA synchronous={LOOSE}"
        return super().execute(sql, *values)


def connect(*args: Any, **options: Any) -> sqlite3.Connection:
    """Open a connection of the other kind."""
    found: sqlite3.Connection = _connect(*args, factory=Loose, **options)
    return found


class FailingOpen:
    """Lets the n-th opening of a file in the data folder fail."""

    def __init__(self) -> None:
        name, _, number = FAILING_OPEN.partition(":")
        self._code = getattr(errno, name)
        self._left = int(number)

    def check(self, path: Any) -> None:
        """Count an opening."""
        if isinstance(path, int) or "/data" not in os.fspath(path):
            return
        self._left -= 1
        if self._left == 0:
            raise OSError(self._code, os.strerror(self._code), path)

    def os_open(self, path: Any, *args: Any, **options: Any) -> int:
        """Open as `os.open` does."""
        self.check(path)
        return _os_open(path, *args, **options)

    def io_open(self, path: Any, *args: Any, **options: Any) -> Any:
        """Open as `io.open` does."""
        self.check(path)
        return _io_open(path, *args, **options)


if __name__ == "__main__":
    sqlite3.connect = connect  # type: ignore[assignment]
    if "DEAF" in os.environ:
        journal.failure_kind = lambda problem: "busy"
    if FAILING_OPEN:
        failing = FailingOpen()
        os.open = failing.os_open
        io.open = failing.io_open  # type: ignore[assignment]
        builtins.open = failing.io_open  # type: ignore[assignment]
    pushd(prog_name="pushd")
