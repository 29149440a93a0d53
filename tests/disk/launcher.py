"""Run pushd with a disk that is not to be trusted, for negative controls.

    LOOSE=NORMAL python -m tests.disk.launcher --data …     # or OFF: PRAGMA synchronous

The product has no such setting; only the statement that sets it is changed here.
"""

import os
import sqlite3
from typing import Any

from pushd.cli import pushd

LOOSE = os.environ.get("LOOSE", "FULL")
_connect = sqlite3.connect


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


if __name__ == "__main__":
    sqlite3.connect = connect  # type: ignore[assignment]
    pushd(prog_name="pushd")
