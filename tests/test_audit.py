"""What is written down: entries that show no secret, tallies of logins, and bounded tables."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from pushd.audit import MANY, MOST, TEXT_MAX, Attempts, Entry, Kind, account_number
from pushd.clock import Clock
from pushd.config import Audit, Config, Server
from pushd.handlers.operator import ResetPassword
from pushd.model import MAX_INT
from pushd.store import Store

DAY_MS = 86_400_000


class Hands(Clock):
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.time = 1_700_000_000_000  # ms

    def wall(self) -> int:
        return self.time


def run(folder: Path, work: Callable[[Store, Hands], Awaitable[None]], **settings: int) -> None:
    """Do something with an open store."""

    async def main() -> None:
        clock = Hands()
        config = Config(server=Server(data=str(folder)), audit=Audit(**settings))
        store = await Store.open(config, clock)
        store.start(lambda deliveries, signals: None)
        try:
            await work(store, clock)
        finally:
            await store.close()

    asyncio.run(main())


# Entries


def test_an_entry_shows_the_fields_that_were_chosen() -> None:
    """Nothing of a request is shown unless its row says so; a password never."""
    request = ResetPassword(user="10001", password="secret")
    entry = Entry("uid 0 pid 1", "reset_password")
    entry.describe(request, ("user",))
    assert (entry.detail, entry.account) == ("user=10001", 10001)
    assert "secret" not in repr(entry)


def test_an_entry_is_cut() -> None:
    """What an operator typed is bounded, and a phone is not taken for an id."""
    entry = Entry("uid 0 pid 1", "disable")
    entry.describe(ResetPassword(user="x" * 1000), ("user",))
    assert len(entry.detail) == TEXT_MAX
    assert account_number("18870742138") == 0
    assert account_number("１０００１") == 0
    assert account_number("10001") == 10001


# Tallies


def test_equal_attempts_are_one() -> None:
    """A guesser makes one entry, which says how often; taking it begins anew."""
    attempts = Attempts()
    for _ in range(1000):
        attempts.note("login", 10001, "192.0.2.1", "wrong password")
    attempts.note("login", 10001, "192.0.2.1", "ok")
    found = {(entry.outcome, entry.kind): entry.count for entry in attempts.take()}
    assert found == {("wrong password", Kind.FAILED): 1000, ("ok", Kind.LOGIN): 1}
    assert attempts.take() == []


def test_attempts_that_could_not_be_written_are_kept() -> None:
    """A full disk loses no count, and the next attempts are added to them."""
    attempts = Attempts()
    for _ in range(3):
        attempts.note("login", 10001, "192.0.2.1", "wrong password")
        attempts.put_back(attempts.take())
    [entry] = attempts.take()
    assert (entry.count, entry.kind) == (3, Kind.FAILED)


def test_different_attempts_are_bounded() -> None:
    """Beyond MOST addresses the rest is counted together, and none is lost."""
    attempts = Attempts()
    for number in range(10_000):
        attempts.note("login", number, f"192.0.2.{number}", "wrong password")
    found = attempts.take()
    assert len(found) == MOST + 1
    assert sum(entry.count for entry in found) == 10_000
    [rest] = [entry for entry in found if entry.actor == MANY]
    assert (rest.account, rest.count) == (0, 10_000 - MOST)


# The table


def test_each_kind_has_room_of_its_own(tmp_path: Path) -> None:
    """A flood of failed logins pushes out the oldest of them, and nothing else."""

    async def work(store: Store, clock: Hands) -> None:
        await store.audit.add(Entry("uid 0 pid 1", "stop", outcome="ok"))
        await store.audit.add(Entry("192.0.2.1", "login", 10001, outcome="ok", kind=Kind.LOGIN))
        for start in range(0, 500, 100):
            await store.audit.add_logins(
                [
                    Entry(f"192.0.2.{number}", "login", outcome="wrong", kind=Kind.FAILED)
                    for number in range(start, start + 100)
                ]
            )
        rows = await store.audit.page(0, 0, MAX_INT, 0, 1000)
        assert [row[2] for row in rows[:100]] == [f"192.0.2.{n}" for n in range(499, 399, -1)]
        assert [row[3] for row in rows[100:]] == ["login", "stop"]

    run(tmp_path, work, rows=100)


def test_old_entries_go(tmp_path: Path) -> None:
    """What is older than `audit.days` is removed in steps, and reports that are done with."""

    async def work(store: Store, clock: Hands) -> None:
        for number in range(10):
            await store.audit.add(Entry("uid 0 pid 1", f"action{number}", 10001 + number % 2))
            clock.time += DAY_MS
        removed = 0
        while step := await store.audit.trim(2):
            assert step <= 3
            removed += step
        rows = await store.audit.page(0, 0, MAX_INT, 0, 1000)
        assert [row[3] for row in rows] == ["action9", "action8", "action7"]
        assert removed == 7
        await store.audit.add(Entry("uid 0 pid 1", "later"))
        assert len(await store.audit.page(0, clock.time, MAX_INT, 0, 1000)) == 1
        assert [row[3] for row in await store.audit.page(10002, 0, MAX_INT, 0, 9)] == [
            "action9",
            "action7",
        ]

    run(tmp_path, work, days=3)


def test_logins_go_with_their_account(tmp_path: Path) -> None:
    """From where somebody logged in is theirs; what the operator did to them stays."""

    async def work(store: Store, clock: Hands) -> None:
        account = await store.accounts.register("18870742138", b"hash", "Ana")
        await store.audit.add(Entry("uid 0 pid 1", "enable", account.id, outcome="ok"))
        await store.audit.add_logins(
            [
                Entry("192.0.2.1", "login", account.id, outcome="ok", kind=Kind.LOGIN),
                Entry("192.0.2.1", "login", account.id, outcome="wrong", kind=Kind.FAILED),
            ]
        )
        assert len(await store.audit.logins(account.id)) == 2
        await store.lifecycle.remove(account.id)
        rows = await store.audit.page(0, 0, MAX_INT, 0, 1000)
        assert [row[3] for row in rows] == ["enable"]

    run(tmp_path, work)
