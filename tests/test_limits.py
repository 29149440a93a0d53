"""Budgets and penalties: exact waits, bounded tables, and nobody locked out by a stranger."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pushd.limits import Budget, Penalties, network

START = 1000.0
HOME = ("18870742138", "192.0.2.1")
AWAY = ("18870742138", "198.51.100.9")

relaxed = settings(deadline=None)
waits = st.floats(0, 100, allow_nan=False)


def test_budget_counts() -> None:
    """`count` pass at once, then one each `seconds / count`, each key on its own."""
    budget = Budget(3, 60, 10)
    assert [budget.take("a", START) for _ in range(5)] == [0, 0, 0, 20, 20]
    assert budget.take("b", START) == 0
    assert budget.take("a", START + 19.5) == 1
    assert budget.take("a", START + 20) == 0
    assert budget.take("a", START + 20) == 20


def test_budget_is_whole_again() -> None:
    """After `seconds` without use all of it is there again, and never more."""
    budget = Budget(3, 60, 10)
    for now in (START, START + 60, START + 10_000):
        assert [budget.take("a", now) for _ in range(4)] == [0, 0, 0, 20]


def test_budget_peek() -> None:
    """Looking tells what taking would, and spends nothing."""
    budget = Budget(1, 10, 10)
    assert [budget.peek("a", START) for _ in range(3)] == [0, 0, 0]
    assert budget.take("a", START) == 0
    assert budget.peek("a", START + 3) == budget.take("a", START + 3) == 7


def test_budget_amounts() -> None:
    """Several can be spent at once or not at all; more than the whole needs the whole."""
    budget = Budget(10, 10, 10)
    assert budget.take("a", START, 7) == 0
    assert budget.take("a", START, 5) == 2
    assert budget.take("a", START, 3) == 0
    assert budget.take("a", START + 5, 99) == 5
    assert budget.take("a", START + 10, 99) == 0
    assert budget.take("a", START + 10) == 1


def test_budget_without_limit() -> None:
    """A count of 0 is no limit and remembers nobody."""
    budget = Budget(0, 60, 1)
    assert not any(budget.take(key, START) for key in range(1000))
    assert budget.peek("a", START) == 0 and len(budget) == 0


@relaxed
@given(st.integers(1, 20), st.floats(0.5, 4000), st.lists(waits, max_size=60))
@example(3, 1.0, [0.1] * 30)
def test_budget_bound(count: int, seconds: float, gaps: list[float]) -> None:
    """No stretch of time lets more pass than `count` and one for each `seconds / count` of it."""
    budget, now, passed = Budget(count, seconds, 5), START, []
    for gap in gaps:
        now += gap * seconds / 100
        if budget.take("a", now) == 0:
            passed.append(now)
    for first, begin in enumerate(passed):
        for last in range(first, len(passed)):
            allowed = count + (passed[last] - begin) * count / seconds
            assert last - first + 1 <= allowed + 1e-3


@relaxed
@given(st.integers(1, 20), st.floats(0.5, 4000), st.lists(waits, max_size=40))
def test_budget_wait_is_exact(count: int, seconds: float, gaps: list[float]) -> None:
    """Who comes back after the wait passes; a second and more before its end nobody does."""
    budget, now = Budget(count, seconds, 5), START
    for gap in gaps:
        now += gap * seconds / 100
        wait = budget.take("a", now)
        assert isinstance(wait, int) and 0 <= wait <= math.ceil(seconds)
        if wait:
            assert budget.peek("a", now + wait) == 0
            assert budget.peek("a", now + wait - 1.001) != 0 or wait == 1


def test_table_is_bounded() -> None:
    """However many keys come, no more than `keys` are remembered."""
    budget = Budget(2, 60, 100)
    for n in range(5000):
        budget.take(n, START + n / 1000)
        assert len(budget) <= 100
    assert len(budget._table._heap) == len(budget)


def test_table_gives_up_the_freest() -> None:
    """A flood of new keys pushes out its own kind, not the key that has spent most."""
    budget = Budget(5, 60, 10)
    for _ in range(5):
        budget.take("guilty", START)
    for n in range(1000):
        assert budget.take(n, START) == 0
    assert budget.take("guilty", START) == 12


def test_table_counts_newcomers() -> None:
    """Also in a table full of keys that have spent more, a new key is counted."""
    budget = Budget(5, 60, 2)
    for key in ("a", "b"):
        for _ in range(4):
            budget.take(key, START)
    assert [budget.take("c", START) for _ in range(6)] == [0, 0, 0, 0, 0, 12]


def test_table_shrinks() -> None:
    """Keys that are free again leave as others come."""
    budget = Budget(5, 60, 1000)
    for n in range(1000):
        budget.take(n, START)
    for n in range(1000):
        budget.take("other", START + 100 + 100 * n)
        budget.take(-n, START + 100 + 100 * n)
    assert len(budget) < 10


@relaxed
@given(st.lists(st.tuples(st.integers(0, 12), waits), max_size=150))
def test_table_against_model(steps: list[tuple[int, float]]) -> None:
    """Among up to `keys` busy keys the table decides like one without a bound."""
    small, large, now = Budget(4, 60, 13), Budget(4, 60, 10_000), START
    for key, gap in steps:
        now += gap / 10
        assert small.take(key, now) == large.take(key, now)
        assert len(small._table._heap) == len(small) <= 13


def wrong(penalties: Penalties, key: tuple[str, str], now: float, times: int) -> list[int]:
    """Try a wrong password some times; return the answers of `check`."""
    answers = []
    for _ in range(times):
        answers.append(penalties.check(key, now))
        if not answers[-1]:
            penalties.failed(key, now)
    return answers


def test_penalty_after_count() -> None:
    """Five wrong passwords a minute are free; then this account and address waits a minute."""
    penalties = Penalties()
    assert wrong(penalties, HOME, START, 8) == [0, 0, 0, 0, 0, 60, 60, 60]
    assert penalties.check(HOME, START + 59.5) == 1
    assert penalties.check(HOME, START + 60) == 0


def test_penalty_leaves_others_alone() -> None:
    """A stranger's failures shut neither the account's other addresses nor his address's others."""
    penalties = Penalties()
    wrong(penalties, AWAY, START, 1000)
    assert penalties.check(HOME, START) == 0
    assert penalties.check(("13912345678", AWAY[1]), START) == 0


def test_penalty_grows() -> None:
    """Each failure after a wait doubles the next, up to an hour."""
    penalties, now, seen = Penalties(), START, []
    wrong(penalties, HOME, now, 5)
    for _ in range(10):
        seen.append(penalties.check(HOME, now))
        now += seen[-1]
        penalties.failed(HOME, now)
    assert seen == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600, 3600]


def test_penalty_is_spread_over_a_minute() -> None:
    """Wrong passwords at the free pace never make anybody wait."""
    penalties = Penalties()
    for n in range(500):
        assert wrong(penalties, HOME, START + 12.001 * n, 1) == [0]


def test_penalty_is_forgotten() -> None:
    """An hour after the wait without a failure all is as at first; a little earlier it is not."""
    for late, expected in ((60 + 3599, [0, 120]), (60 + 3600, [0, 0, 0, 0, 0, 60])):
        penalties = Penalties()
        wrong(penalties, HOME, START, 5)
        assert wrong(penalties, HOME, START + late, len(expected)) == expected


def test_penalty_ends_with_success() -> None:
    """The right password clears the record of its own address only."""
    penalties = Penalties()
    wrong(penalties, HOME, START, 5)
    wrong(penalties, AWAY, START, 5)
    penalties.succeeded(HOME, START + 60)
    assert wrong(penalties, HOME, START + 60, 6) == [0, 0, 0, 0, 0, 60]
    assert wrong(penalties, AWAY, START + 60, 2) == [0, 120]


def test_penalty_without_limit() -> None:
    """A count of 0 is no limit."""
    assert not any(wrong(Penalties(0), HOME, START, 100))


def test_penalty_never_overflows() -> None:
    """Thousands of failures in a row wait the longest time and break nothing."""
    penalties, now = Penalties(1), START
    for _ in range(3000):
        penalties.failed(HOME, now)
        now += penalties.check(HOME, now)
    penalties.failed(HOME, now)
    assert penalties.check(HOME, now) == 3600


def test_penalty_tables_are_bounded() -> None:
    """Guessing at many accounts from many addresses takes bounded memory and frees nobody."""
    penalties = Penalties(keys=50)
    wrong(penalties, HOME, START, 5)
    for n in range(2000):
        penalties.failed((f"phone{n}", f"address{n}"), START)
        penalties.succeeded((f"phone{n}", f"address{n}"), START)
    assert penalties.check(HOME, START) == 60
    for table in (penalties._guesses, penalties._crowds, penalties._trusted):
        assert len(table) == len(table._heap) == 50


def test_penalty_heap_does_not_grow() -> None:
    """Failing and succeeding in turns for ever leaves one entry."""
    penalties = Penalties()
    for n in range(500):
        penalties.failed(HOME, START + n)
        penalties.succeeded(HOME, START + n)
    assert len(penalties._guesses._heap) == 1


def crowd(penalties: Penalties, failures: int, now: float) -> None:
    """Let as many addresses fail once each on one account."""
    for n in range(failures):
        penalties.failed((HOME[0], f"203.0.113.{n}"), now)


@pytest.mark.parametrize(
    ("failures", "delay"), [(0, 0.0), (19, 0.0), (20, 0.1), (29, 1.0), (39, 2.0), (500, 2.0)]
)
def test_slowdown(failures: int, delay: float) -> None:
    """From 20 failures a minute over all addresses the account gets slower, by 2 s at most."""
    penalties = Penalties()
    crowd(penalties, failures, 1200.0)
    assert penalties.slowdown(HOME[0], 1200.0) == pytest.approx(delay)
    assert penalties.slowdown("13912345678", 1200.0) == 0
    assert penalties.check(HOME, 1200.0) == 0


def test_slowdown_passes() -> None:
    """A minute or two after an attack the account is as fast as before."""
    penalties = Penalties()
    crowd(penalties, 30, 1200.0)
    delays = [penalties.slowdown(HOME[0], 1200.0 + 10 * n) for n in range(13)]
    assert delays[0] > 1 and delays[-1] == 0
    assert delays == sorted(delays, reverse=True)
    crowd(penalties, 40, 2400.0)
    assert penalties.slowdown(HOME[0], 2490.0) == pytest.approx(0.1)  # half of 40


def test_slowdown_spans_minutes() -> None:
    """Failures on both sides of a full minute count together."""
    penalties = Penalties()
    crowd(penalties, 15, 1259.0)
    crowd(penalties, 15, 1261.0)
    assert penalties.slowdown(HOME[0], 1261.0) > 0.5
    assert penalties.slowdown(HOME[0], 1290.0) == pytest.approx(0.35)  # 15 and half of 15
    assert penalties.slowdown(HOME[0], 1320.0) == 0
    crowd(penalties, 1, 1500.0)
    assert penalties.slowdown(HOME[0], 1500.0) == 0


def test_trusted() -> None:
    """An address that gave the right password is trusted for 30 days, for that account."""
    penalties = Penalties()
    penalties.succeeded(HOME, START)
    assert penalties.trusted(HOME, START + 29 * 86400)
    assert not penalties.trusted(HOME, START + 30 * 86400)
    assert not penalties.trusted(AWAY, START)
    assert not penalties.trusted(("13912345678", HOME[1]), START)


def test_trusted_is_still_limited() -> None:
    """Trust spares from slowness, not from the waits: a shared address may guess as well."""
    penalties = Penalties()
    penalties.succeeded(HOME, START)
    assert wrong(penalties, HOME, START, 6)[-1] == 60


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("10.0.0.1", "10.0.0.2", False),
        ("fe80::1", "fe80::2", False),
        ("uid 0 pid 1", "uid 0 pid 2", False),
        ("local:x", "local:y", False),
    ],
)
def test_a_customer_is_one(one: str, other: str, same: bool) -> None:
    """The addresses of IPv6 that one customer has count as one, for else none would be limited."""
    assert (network(one) == network(other)) is same
    assert network("::1") == "::1"
