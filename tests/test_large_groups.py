"""Groups of 5,000 in the store: made whole or not at all, paged, filled, and written to."""

import asyncio
import time
from pathlib import Path

import pytest

from pushd.config import Limits
from pushd.draft import drafts
from pushd.errors import Refusal
from pushd.model import Accepted, Actor, InfoIn, MessageIn
from pushd.status import Status
from pushd.store.journal import Journal
from pushd.store.writer import Post
from tests.test_store import Bench

MOST = 5000
# Of one page, and of making the group, in seconds, on a machine that does other things as well.
PAGE, MAKING = 1.0, 10.0


async def crowd(bench: Bench) -> tuple[Actor, list[int]]:
    """Make an account with as many friends as one may have; give their numbers."""
    owner = await bench.user()

    def fill(journal: Journal) -> list[int]:
        numbers = list(range(owner.account + 1, owner.account + 1 + MOST))
        insert = journal.db.executemany
        insert(
            "INSERT INTO account (id, phone, password, created, modified) VALUES (?, ?, x'', 0, 0)",
            [(number, str(13_900_000_000 + number)) for number in numbers],
        )
        lines = "INSERT INTO device (account, created, last_seen, since) VALUES (?, 0, 0, 0)"
        insert(lines, [(number,) for number in numbers])
        journal.db.execute(
            "INSERT INTO position (device) SELECT id FROM device WHERE account > ?",
            (owner.account,),
        )
        insert(
            "INSERT INTO friendship (account, friend, created) VALUES (?, ?, 0)",
            [pair for n in numbers for pair in ((owner.account, n), (n, owner.account))],
        )
        return numbers

    return owner, await bench.store.writer.call(fill)


@pytest.mark.slow
async def test_five_thousand(tmp_path: Path) -> None:
    """Unknown ids spoil all of it, repeated ones nothing; every page shows each member once."""
    bench = Bench(tmp_path)
    await bench.open()
    try:
        groups = bench.store.groups
        owner, friends = await crowd(bench)
        unknown = [friends[-1] + n for n in (1, 2, 3)]
        ids = [*friends[:2000], unknown[0], *friends[2000:4996], *unknown[1:], friends[0]]
        assert len(ids) == MOST
        with pytest.raises(Refusal) as refused:
            await groups.create(owner, "x", "group", ids, {})
        assert (refused.value.status, refused.value.field) == (Status.NULL_USER, "userIds")
        assert bench.sql("SELECT count(*) FROM groups") == [(0,)]
        with pytest.raises(Refusal) as refused:
            await groups.create(owner, "x", "group", friends, {})  # one too many with the owner
        assert refused.value.status == Status.LIMIT_REACHED

        begin = time.monotonic()
        twice = [*friends[:-1], friends[0], friends[-2]]
        key = await groups.create(owner, "x", "group", twice, {})
        assert time.monotonic() - begin < MAKING
        seen = await groups.seen(owner.account, key)
        assert (seen.members, seen.owner) == (MOST, str(owner.account))

        found, after = [], 0
        while True:
            begin = time.monotonic()
            page = await groups.members(owner.account, key, after, 0, 101)
            assert time.monotonic() - begin < PAGE
            found += [int(entry.user.id) for entry in page[:100]]
            if len(page) <= 100:
                break
            after = found[-1]
        assert found == [owner.account, *friends[:-1]]

        with pytest.raises(Refusal) as refused:
            await groups.invite(owner, key, [friends[-1]])
        assert refused.value.status == Status.LIMIT_REACHED
        await written_to(bench, owner, key)
        await bench.reopen()
        asked: list[str] = []
        bench.journal.db.set_trace_callback(asked.append)
        await written_to(bench, owner, key)
        # Nor is each member asked about singly when nothing is known after a start.
        assert 0 < len([sql for sql in asked if sql.startswith("SELECT")]) < MOST / 50
    finally:
        await bench.store.close()


async def written_to(bench: Bench, owner: Actor, key: str) -> None:
    """Require that a message is in all queues when it is confirmed."""
    message = MessageIn(chat_id=key, type="7", info=InfoIn("0", "x"))
    bench.deliveries.clear()
    done: asyncio.Future[Post] = asyncio.get_running_loop().create_future()
    post = Post(owner, done.set_result)
    post.add(drafts([message], owner.account, Limits()))
    bench.store.post(post)
    [[accepted]] = (await done).results
    assert isinstance(accepted, Accepted)
    query = "SELECT count(*), count(DISTINCT device) FROM queue WHERE message = ?"
    assert bench.sql(query, accepted.msg_id) == [(MOST - 1, MOST - 1)]
    assert len(bench.deliveries) == MOST - 1
