"""Counts by size, as plain integers: cheap to add to, and read by other threads without a lock."""

from bisect import bisect_left
from collections.abc import Sequence

# Bounds of what takes microseconds to seconds.
SECONDS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
# Bounds of what is counted: powers of two.
SIZES = tuple(float(1 << power) for power in range(15))


class Histogram:
    """How many values were at most each bound, and their sum; one thread adds, any may read."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)  # each on its own; the last one is beyond all
        self.total = 0.0  # the sum of all values

    def add(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self._counts)

    def buckets(self) -> list[tuple[float, int]]:
        """Give each bound with how many values were at most that, infinity last."""
        found, seen = [], 0
        # One copy first: a value that is added meanwhile is in all of it or in nothing.
        counts = self._counts.copy()
        for bound, count in zip((*self._bounds, float("inf")), counts, strict=True):
            seen += count
            found.append((bound, seen))
        return found

    def quantile(self, part: float) -> float:
        """Give the bound below which this part of the values lies; 0 without any."""
        buckets = self.buckets()
        wanted = part * buckets[-1][1]
        return next((bound for bound, seen in buckets if seen and seen >= wanted), 0.0)
