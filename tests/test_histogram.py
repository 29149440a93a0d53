"""Counts by size: cumulative buckets, the sum, and quantiles."""

from pushd.histogram import SECONDS, SIZES, Histogram


def test_a_value_is_in_each_bucket_from_its_bound_on() -> None:
    """A value that is a bound is within it; one beyond all is only in the last bucket."""
    histogram = Histogram((1, 2, 4))
    for value in (0, 1, 1.5, 4, 5):
        histogram.add(value)
    assert histogram.buckets() == [(1, 2), (2, 3), (4, 4), (float("inf"), 5)]
    assert (histogram.count, histogram.total) == (5, 11.5)


def test_quantiles() -> None:
    """A quantile is the bound that this part of the values is within."""
    histogram = Histogram((1, 2, 4))
    assert histogram.quantile(0.5) == 0
    for value in (1, 1, 2, 3):
        histogram.add(value)
    assert [histogram.quantile(part) for part in (0.0, 0.5, 0.75, 1.0)] == [1, 1, 2, 4]
    histogram.add(100)
    assert histogram.quantile(1.0) == float("inf")


def test_bounds_rise() -> None:
    """Bounds are in order and none is there twice."""
    for bounds in (SECONDS, SIZES):
        assert list(bounds) == sorted(set(bounds))
