"""The indexes that are written late, on a database in memory, against what was committed."""

import random
import sqlite3

import pytest

from pushd.store.engine import migrate
from pushd.store.indexes import LEAST_SLICE, ClientKeys, TwoParts, in_both, newest_of

LIMIT = 100


class Shelf:
    """Both indexes, and a plain record of what they must know."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        migrate(self.db)
        self.messages: dict[int, tuple[int, int | None]] = {}  # msgId: chat and key
        self.next_id = 1
        self.start()

    def start(self) -> None:
        """Begin as after a start of the server."""
        self.chats = TwoParts("chat_recent", "chat_message", ("chat", "message"), LIMIT)
        self.keys = ClientKeys(LIMIT)
        self.keys.open(self.db)

    def batch(self, size: int, *, commits: bool = True) -> None:
        """Store messages in one transaction, which may be undone."""
        self.db.execute("BEGIN")
        made: dict[int, tuple[int, int | None]] = {}
        for number in range(self.next_id, self.next_id + size):
            chat = self.random.randint(1, 8)
            key = self.random.getrandbits(64) - (1 << 63) if self.random.random() < 0.9 else None
            made[number] = (chat, key)
            self.db.execute(
                "INSERT INTO message (id, chat, sender, created, body, client_key)"
                " VALUES (?, ?, 1, 1, '', ?)",
                (number, chat, key),
            )
            self.chats.rows += (chat, number)
            if key is not None:
                self.keys.added[key] = number
        self.next_id += size
        self.chats.flush(self.db)
        self.chats.settle(self.db, size)
        self.keys.settle(self.db, size)
        if commits:
            self.db.execute("COMMIT")
            self.keys.committed()
            self.messages |= made
        else:
            self.db.execute("ROLLBACK")
            self.chats.rolled_back()
            self.keys.rolled_back()

    def found(self, key: int) -> list[int]:
        """Find a clientId as the journal does."""
        old = self.db.execute("SELECT message FROM client_key WHERE key = ?", (key,))
        return [row[0] for row in old] + self.keys.find([key])

    def check(self) -> None:
        """Compare all that both indexes say with the record."""
        listed = self.db.execute(in_both("SELECT chat, message FROM {part}")).fetchall()
        assert sorted(listed) == sorted((chat, one) for one, (chat, _) in self.messages.items())
        for chat in range(1, 9):
            newest = newest_of("SELECT max(message) FROM {part} WHERE chat = ?1")
            known = [one for one, (of, _) in self.messages.items() if of == chat]
            found = self.db.execute(f"SELECT {newest}", (chat,)).fetchone()[0]
            assert found == max(known, default=None)
        for number, (_, key) in self.messages.items():
            if key is not None:
                assert set(self.found(key)) == {number}


@pytest.mark.parametrize("seed", range(6))
def test_both_parts_together_are_the_index(seed: int) -> None:
    """Whatever is committed, undone and swept, every message is found once, also after a start."""
    shelf = Shelf(seed)
    for _ in range(60):
        shelf.batch(shelf.random.choice((1, 3, 20)), commits=shelf.random.random() < 0.8)
        if shelf.random.random() < 0.05:
            shelf.start()
    shelf.check()
    assert shelf.db.execute("SELECT count(*) FROM chat_message").fetchone()[0], "nothing was swept"
    assert shelf.db.execute("SELECT count(*) FROM client_key").fetchone()[0], "nothing was swept"


def test_the_young_parts_are_bounded() -> None:
    """However much comes in, the young parts stay below twice their limit and a slice."""
    shelf = Shelf(1)
    most = 2 * LIMIT + LEAST_SLICE
    for _ in range(200):
        shelf.batch(10)
        assert shelf.db.execute("SELECT count(*) FROM chat_recent").fetchone()[0] <= most
        assert len(shelf.keys._young) <= most
    shelf.start()
    assert len(shelf.keys._young) <= most


def test_a_freed_key_is_found_no_more() -> None:
    """A key is freed in the table and in memory, also while it waits to be swept."""
    shelf = Shelf(2)
    shelf.batch(LIMIT * 2)
    shelf.batch(1)  # begins the sweep
    entries = [(key, one) for one, (_, key) in shelf.messages.items() if key is not None]
    freed, kept = entries[::2], entries[1::2]
    shelf.keys.free(shelf.db, freed)
    for _ in range(20):
        shelf.batch(1)
    assert [one for key, one in freed if shelf.found(key)] == []
    assert [set(shelf.found(key)) for key, _ in kept] == [{one} for _, one in kept]


@pytest.mark.parametrize("order", ["ASC", "DESC"])
def test_a_page_of_history_reads_no_more_than_itself(order: str) -> None:
    """Both parts are walked in order of msgId: nothing is sorted, and nothing scanned."""
    shelf = Shelf(3)
    query = in_both(
        "SELECT i.message, m.body FROM {part} i JOIN message m ON m.id = i.message"
        " WHERE i.chat = 1 AND i.message > 5"
    )
    plan = shelf.db.execute(f"EXPLAIN QUERY PLAN {query} ORDER BY 1 {order} LIMIT 10").fetchall()
    steps = [row[3] for row in plan]
    assert any("MERGE" in step for step in steps), steps
    assert not any("TEMP B-TREE" in step or "SCAN" in step for step in steps), steps
