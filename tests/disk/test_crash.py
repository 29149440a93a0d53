"""No confirmed message is lost when the server is killed, and this is a test that would tell."""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.disk.crash import Campaign, campaign, summary
from tests.model.checker import Answered, Entry

pytestmark = pytest.mark.slow

ROUNDS = 20
LIFE = (0.03, 0.2)


@pytest.mark.timeout(300)
async def test_killed_servers_lose_nothing() -> None:
    """Whatever instant a SIGKILL hits, each confirmed message arrives once and in order."""
    seed = random.randrange(1 << 32)
    totals = await campaign(ROUNDS, float("inf"), seed, LIFE)
    report = totals.report
    assert not report.violations, f"seed {seed}\n{summary(totals)}"
    assert totals.rounds == ROUNDS
    # The rounds did hit a server at work: something was unanswered, something came again.
    assert report.confirmed > 1000
    assert report.sent > report.confirmed
    assert report.redelivered > 0


WAITING = (
    "SELECT q.device, q.seq, q.message FROM queue q JOIN position p ON p.device = q.device"
    " WHERE q.seq > p.acked AND q.seq < p.last"
)


def drop(db: sqlite3.Connection, confirmed: set[int]) -> None:
    """Lose one confirmed message that waits: its seq will be missing."""
    lost = next(row for row in db.execute(WAITING).fetchall() if row[2] in confirmed)
    db.execute("DELETE FROM queue WHERE device = ? AND seq = ?", lost[:2])


def double(db: sqlite3.Connection, confirmed: set[int]) -> None:
    """Have one message wait twice."""
    device, _, message = next(row for row in db.execute(WAITING).fetchall() if row[2] in confirmed)
    change = "UPDATE position SET last = last + 1 WHERE device = ? RETURNING last"
    [last] = db.execute(change, (device,)).fetchone()
    db.execute("INSERT INTO queue VALUES (?, ?, ?)", (device, last, message))


def forget(db: sqlite3.Connection, confirmed: set[int]) -> None:
    """Forget which clientIds are stored, so that what is sent again is taken for new."""
    assert db.execute("UPDATE message SET client_key = NULL").rowcount
    db.execute("DELETE FROM client_key")


ROUNDS_OF_CONTROL = 12


@pytest.mark.parametrize(("slip", "rule"), [(drop, "I4"), (double, "I3"), (forget, "I2")])
async def test_what_a_bad_store_does_is_caught(
    tmp_path: Path, slip: Callable[[sqlite3.Connection, set[int]], None], rule: str
) -> None:
    """Control: a store that loses, doubles or forgets behind the server's back is found out.

    Forgetting shows only where a kill fell between a commit and its confirmation, so it gets
    several rounds to.
    """
    crash = Campaign(tmp_path, seed=1, life=(0.1, 0.15))

    def tamper(data: Path) -> None:
        with closing(sqlite3.connect(data / "pushd.db", isolation_level=None)) as db:
            slip(db, confirmed_in(crash.log))

    try:
        await crash.set_up()
        for _ in range(ROUNDS_OF_CONTROL):
            report = await crash.round(tamper)
            if report.violations:
                break
    finally:
        await crash.close()
    assert {violation[:2] for violation in report.violations} >= {rule}


def confirmed_in(log: list[Entry]) -> set[int]:
    return {entry.msg_id for entry in log if isinstance(entry, Answered) and entry.msg_id}
