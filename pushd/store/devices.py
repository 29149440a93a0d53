"""Devices: the secret names of queues, and what becomes of a queue when its device dies."""

import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from ..errors import Refusal
from ..model import Actor, Bound
from ..status import Status
from .indexes import QUEUE_TABLES
from .journal import Journal
from .noun import Noun, reads, writes
from .records import Mailbox, Queue


class Devices(Noun):
    """The verbs of devices; tokens are the SHA-256 of pushIds."""

    epoch = ""  # the random name of the store's history

    async def create(
        self,
        actor: Actor,
        token: bytes,
        name: str,
        *,
        most: int,
        online: Collection[int],
        answering: Collection[int],
        then: Callable[[Bound], None],
    ) -> Bound:
        """Make a device for a login; the first one of an account takes over what waits.

        While no client has shown that it got a pushId, and none is connected and `answering`, a
        further device gets the same. Beyond `most` the one longest offline is signed out; raises
        Refusal 4006 when all of them are `online`. `then` runs on the loop in commit order.
        """

        def change(journal: Journal) -> Bound:
            dropped = _make_room(journal, actor.account, most, online)
            device = _insert(journal, actor.account, token, name, answering)
            query = "SELECT show_presence, read_receipts FROM account WHERE id = ?"
            flags = journal.db.execute(query, (actor.account,)).fetchone()
            bound = _bound(journal, device, actor.generation, flags, self.epoch)
            bound.signed_out = dropped
            return bound

        return await self.writer.call(change, actor=actor, then=then)

    async def bind(
        self,
        token: bytes,
        actor: Actor | None,
        name: str,
        *,
        oldest: int,
        then: Callable[[Bound], None],
    ) -> Bound:
        """Take a device up again; `actor` is the login it must belong to, if there is one.

        Raises Refusal 11001 for a device that is unknown, dead, unseen since `oldest` (ms), or
        somebody else's. `then` runs on the loop in commit order. It works on a disk without a byte.
        """

        def change(journal: Journal) -> Bound:
            query = (
                "SELECT d.id, d.account, a.generation, a.show_presence, a.read_receipts"
                " FROM device d JOIN account a"
                " ON a.id = d.account WHERE d.token = ? AND d.last_seen >= ? AND NOT a.disabled"
            )
            found = journal.db.execute(query, (token, oldest)).fetchone()
            if found is None or (actor is not None and actor.account != found[1]):
                raise Refusal(Status.ERROR_NET, "this pushId is not known", field="pushId")
            if not journal.reserve.spent:
                # A full disk has room for what is asked for, not for notes of who came.
                update = (
                    "UPDATE device SET last_seen = ?1, name = iif(?2 = '', name, ?2), proven = 1"
                    " WHERE id = ?3"
                )
                journal.db.execute(update, (journal.now, name, found[0]))
            return _bound(journal, found[0], found[2], found[3:], self.epoch)

        return await self.writer.call(change, actor=actor, grows=False, then=then)

    async def logout(self, actor: Actor, then: Callable[[None], None] | None = None) -> None:
        """End the device of a login, and its queue with it; `then` runs in commit order."""

        def change(journal: Journal) -> None:
            if actor.device:
                drop_devices(journal, actor.account, [actor.device], quietly=True)

        await self.writer.call(change, actor=actor, grows=False, then=then)

    @writes(grows=False)
    def sign_out(self, journal: Journal, actor: Actor, device: int) -> None:
        """End another device of the caller's; raises Refusal 4005 if it is not theirs."""
        query = "SELECT 1 FROM device WHERE id = ? AND account = ? AND token IS NOT NULL"
        if not journal.db.execute(query, (device, actor.account)).fetchone():
            raise Refusal(Status.NOT_FOUND, "no such device", field="deviceId")
        drop_devices(journal, actor.account, [device])

    def drop(self, journal: Journal, account: int, device: int) -> None:
        """End one device; runs in the writer's thread."""
        drop_devices(journal, account, [device])

    @writes(grows=False)
    def seen_now(self, journal: Journal, devices: Sequence[int]) -> None:
        """Note that devices are connected at this moment."""
        for device in devices:
            update = "UPDATE device SET last_seen = ? WHERE id = ?"
            journal.db.execute(update, (journal.now, device))

    def note_seen(self, journal: Journal, devices: Mapping[int, int]) -> None:
        """Note that devices, each with its account, were connected until now.

        Runs in the writer's thread.
        """
        if journal.reserve.spent:
            return
        for table, numbers in (("device", devices.keys()), ("account", set(devices.values()))):
            update = f"UPDATE {table} SET last_seen = ? WHERE id = ?"
            journal.db.executemany(update, [(journal.now, number) for number in sorted(numbers)])

    def note_proven(self, journal: Journal, device: int) -> None:
        """Note that a device's client knows its pushId; runs in the writer's thread."""
        journal.db.execute("UPDATE device SET proven = 1 WHERE id = ?", (device,))

    @reads()
    def of(self, db: sqlite3.Connection, account: int) -> list[tuple[int, str, int]]:
        """List the devices of an account: number, name, and when they were last seen (ms)."""
        query = "SELECT id, name, last_seen FROM device WHERE account = ? AND token IS NOT NULL"
        return db.execute(f"{query} ORDER BY id", (account,)).fetchall()

    @writes(grows=False)
    def drop_unseen(self, journal: Journal, oldest: int, most: int) -> int:
        """End devices that were not connected since then; gives how many."""
        query = "SELECT id, account FROM device WHERE token IS NOT NULL AND last_seen < ? LIMIT ?"
        rows = journal.db.execute(query, (oldest, most)).fetchall()
        for device, account in rows:
            drop_devices(journal, account, [device])
        return len(rows)


def drop_devices(
    journal: Journal, account: int, devices: Iterable[int], *, quietly: bool = False
) -> None:
    """End devices; what the last one had not acked waits for the account's next first one."""
    for device in devices:
        journal.flush()
        box = journal.mailbox(account)
        queue = journal.queue(device)
        if box is not None and queue is not None and list(box.devices) == [device]:
            move_queue(journal, queue, box.line)
        journal.forget_account(account)
        for table in (*QUEUE_TABLES, "position"):
            journal.db.execute(f"DELETE FROM {table} WHERE device = ?", (device,))
        journal.db.execute("DELETE FROM device WHERE id = ?", (device,))
        if not quietly:
            journal.signals.append(("signed_out", device))


def move_queue(journal: Journal, source: Queue, target: Queue) -> int:
    """Append what waits in one queue to another, with seqs of its own; gives the lowest msgId."""
    lowest = copy_queue(journal, source, target)
    for table in QUEUE_TABLES:
        journal.db.execute(f"DELETE FROM {table} WHERE device = ?", (source.device,))
    source.acked = source.last
    journal.touch(source)
    return lowest


def copy_queue(journal: Journal, source: Queue, target: Queue) -> int:
    """Append what waits in one queue to another as well; gives the lowest msgId."""
    db = journal.db
    query = "SELECT seq, message FROM queue WHERE device = ? AND seq > ? ORDER BY seq"
    rows = db.execute(query, (source.device, source.acked)).fetchall()
    base = target.last
    db.execute(
        "INSERT INTO queue_recent SELECT ?1, ?2 + row_number() OVER (ORDER BY seq), message"
        " FROM queue WHERE device = ?3 AND seq > ?4",
        (target.device, base, source.device, source.acked),
    )
    numbers = {row[0]: base + count for count, row in enumerate(rows, start=1)}
    gaps = "SELECT seq FROM gap WHERE device = ? AND seq > ?"
    for (seq,) in db.execute(gaps, (source.device, source.acked)).fetchall():
        copied: tuple[Any, ...] = (target.device, numbers[seq], source.device, seq)
        db.execute(
            "INSERT INTO gap SELECT ?1, ?2, ?2, message, created, open FROM gap"
            " WHERE device = ?3 AND seq = ?4",
            copied,
        )
        db.execute(
            "INSERT INTO gap_chat SELECT ?1, ?2, chat, after FROM gap_chat"
            " WHERE device = ?3 AND seq = ?4",
            copied,
        )
    target.last = base + len(rows)
    journal.touch(target)
    return rows[0][1] if rows else journal.next_id


def _unclaimed(journal: Journal, box: Mailbox, answering: Collection[int]) -> Queue | None:
    """Give the queue of a first device that perhaps nobody knows; None once one is known.

    The reply to its `start` may have been lost, and with the pushId all that waits there.
    """
    query = "SELECT 1 FROM device WHERE account = ? AND token IS NOT NULL AND proven LIMIT 1"
    queues = list(box.devices.values())
    if any(queue.acked or queue.device in answering for queue in queues):
        return None
    return None if journal.db.execute(query, (box.account,)).fetchone() else queues[0]


def _make_room(journal: Journal, account: int, most: int, online: Collection[int]) -> int:
    query = "SELECT id FROM device WHERE account = ? AND token IS NOT NULL ORDER BY last_seen, id"
    devices = [row[0] for row in journal.db.execute(query, (account,))]
    if len(devices) < most:
        return 0
    for device in devices:
        if device not in online:
            drop_devices(journal, account, [device])
            return int(device)
    raise Refusal(Status.LIMIT_REACHED, f"an account has at most {most} devices")


def _insert(
    journal: Journal, account: int, token: bytes, name: str, answering: Collection[int]
) -> int:
    box = journal.mailbox(account)
    assert box is not None, "the login was valid a moment ago"
    source = _unclaimed(journal, box, answering) if box.devices else box.line
    device: int = journal.db.execute(
        "INSERT INTO device (account, token, name, created, last_seen, since, proven)"
        " VALUES (?1, ?2, ?3, ?4, ?4, ?5, 0) RETURNING id",
        (account, token, name, journal.now, journal.next_id - 1),
    ).fetchone()[0]
    journal.db.execute("INSERT INTO position (device) VALUES (?)", (device,))
    if source is not None:
        fresh = Queue(device, account, False, 0, (0, 0, 0, 0))
        journal.flush()
        append = move_queue if source is box.line else copy_queue
        lowest = append(journal, source, fresh)
        since = "UPDATE device SET since = ? WHERE id = ?"
        journal.db.execute(since, (min(lowest, journal.next_id) - 1, device))
        journal.save_positions()
    journal.forget_account(account)
    return device


def _bound(
    journal: Journal, device: int, generation: int, flags: tuple[int, int], epoch: str
) -> Bound:
    queue = journal.queue(device)
    assert queue is not None, "the device was there a moment ago"
    journal.forget_acks(device)
    return Bound(
        Actor(queue.account, device, generation),
        queue.acked,
        queue.last,
        queue.acked + 1 if queue.depth else 0,
        queue.depth,
        epoch,
        bool(flags[0]),
        bool(flags[1]),
    )
