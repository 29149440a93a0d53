"""Many rows in one statement: `INSERT … VALUES (…),(…),…`, in powers of two.

sqlite3 wins the GIL back after every step, so a statement a row is dear beside a busy loop.
"""

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

# Rows a statement; 512 rows of 8 columns stay far below SQLite's 32,766 parameters.
MOST_ROWS = 512


@lru_cache(maxsize=256)
def _sql(head: str, width: int, count: int, tail: str, row: str) -> str:
    row = row or "(" + ",".join("?" * width) + ")"
    return f"{head} VALUES {','.join([row] * count)} {tail}"


def insert_rows(
    db: sqlite3.Connection,
    head: str,
    width: int,
    values: Sequence[Any],
    tail: str = "",
    row: str = "",
) -> None:
    """Insert rows whose values lie one after the other in `values`.

    `row` gives the row of the statement where it is more than a `?` for each value.
    """
    start, left = 0, len(values) // width
    while left:
        count = min(MOST_ROWS, 1 << (left.bit_length() - 1))
        end = start + count * width
        db.execute(_sql(head, width, count, tail, row), values[start:end])
        start, left = end, left - count
