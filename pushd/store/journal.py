"""The write side of the store, as its one thread sees it: operations in commit order.

A batch of operations is one transaction. Each operation is applied in turn, so the decisive check
of every right is made here, at one point in commit order: whatever a `block` or `sign_out` forbids
is refused from the next operation on. Rows of messages and queues are gathered and written with
few statements before the commit, or before an operation that reads them.

The caches (mailboxes, pairs, chats) mirror the database and belong to this thread. Any rollback
empties them, so they can never be ahead of the disk.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Protocol

from ..clock import Clock, Dates
from ..config import Trace
from ..draft import Draft
from ..errors import Refusal, StoreFailed
from ..histogram import SECONDS, Histogram
from ..model import SYSTEM_CHAT, Accepted, Actor, Delivery
from ..names import fold
from ..status import Status
from .engine import failure_kind
from .indexes import QUEUE_TABLES, ClientKeys, TwoParts
from .marks import Marks
from .membership import Group, Groups, notice_body
from .newest import Newest, newest_in
from .records import (
    Mailbox,
    Queue,
    Route,
    checksum,
    digest,
    pair_key,
    sound,
    system_key,
    tail_of,
    text_infos,
)
from .reserve import Reserve
from .rows import insert_rows

MESSAGE_HEAD = (
    "INSERT INTO message"
    " (id, chat, sender, created, body, text, client_id, client_key, expires, checksum)"
)
# Python adapts each None, which takes longer than to bind a value.
MESSAGE_ROW = "(?,?,?,?,?,?,nullif(?,''),nullif(?,0),nullif(?,0),?)"
POSITION_HEAD = "INSERT INTO position (device, last, acked, message, at)"
POSITION_TAIL = (
    "ON CONFLICT (device) DO UPDATE SET"
    " last = excluded.last, acked = excluded.acked, message = excluded.message, at = excluded.at"
)
_LISTED = "IN (SELECT value FROM json_each(?))"
_ACCOUNTS_OF = (
    f"SELECT id, generation, disabled FROM account WHERE id {_LISTED} AND phone IS NOT NULL"
)
_QUEUES_OF = (
    "SELECT d.account, d.id, d.token IS NULL, d.since, p.last, p.acked, p.message, p.at"
    f" FROM device d JOIN position p ON p.device = d.id WHERE d.account {_LISTED} ORDER BY d.id"
)
# The gaps that are not acked: how many seqs each stands for, beside its own.
_GAPS_OF = (
    "SELECT g.device, g.seq, g.seq - max(g.seq_from, p.acked + 1), g.open FROM device d"
    " JOIN position p ON p.device = d.id JOIN gap g ON g.device = d.id AND g.seq > p.acked"
    f" WHERE d.account {_LISTED} ORDER BY g.device, g.seq"
)
# Mailboxes that are read with one statement.
LOADED_AT_ONCE = 500
# Acked rows are removed in ranges of at least this many.
DELETE_RANGE = 64
# Chats that a gap holds: one more than it names, to tell that there are more.
GAP_CHATS = 101


class Busy(Exception):
    """Another program holds the database; the batch may be tried again."""


class Operation(Protocol):
    """What the writer commits; `apply` runs in its thread, `finish` on the loop after the sync."""

    grows: bool  # it needs space, so it is refused while the disk is full
    weight: int  # messages, for the bound of a batch
    sender: int  # the account whose order it keeps, 0 for none
    chats: frozenset[str]  # what may be groups that it writes into
    wide: bool  # it stands in the line of posts into large groups
    deliveries: list[Delivery]
    signals: list[Any]
    error: BaseException | None

    @property
    def lately(self) -> int:
        """How many lists the deliveries are of."""

    def apply(self, journal: "Journal") -> bool:
        """Check and change the store; raise nothing but what ends the whole batch.

        False when the batch has become too large: the rest is applied in the next one.
        """

    def advance(self) -> None:
        """Note that what was applied so far is committed."""

    def finish(self) -> None:
        """Tell whoever waits."""


class Journal:
    """Apply batches of operations to the database; used by the writer's thread alone."""

    def __init__(
        self,
        clock: Clock,
        dates: Dates,
        reserve: Reserve,
        newest: Newest,
        *,
        cache: int,
        pairs: int,
        young_rows: int = 65536,
        young_chats: int = 4096,
        young_client_ids: int = 65536,
        trace: Trace | None = None,
    ) -> None:
        self.clock = clock
        self.dates = dates
        # Settings, which the store keeps up to date
        self.queue_limit = 10_000  # messages a queue holds
        self.client_id_ms = 7 * 86_400_000  # how long a clientId is remembered
        self.most_friends = 5000  # friends, and requests that wait, of one account
        self.strangers = False  # whether people who are no friends may write
        self.batch_rows = 4096  # queue rows of a batch, beyond which it is committed
        self.groups = Groups(pairs)
        self._queue_rows = TwoParts(
            "queue_recent", "queue_old", ("device", "seq", "message"), young_rows
        )
        self._chat_rows = TwoParts("chat_recent", "chat_message", ("chat", "message"), young_chats)
        self.client_keys = ClientKeys(young_client_ids)
        self.marks = Marks(trace or Trace())
        self._written = 0  # values of queue rows that this batch has flushed
        self._bounded = True  # a batch may stop before all is applied
        self.now = 0  # when the batch began, in ms
        self.date = ""  # the same as people read it
        self._tail = b""  # the end of every message of the batch
        self.next_id = 1  # the next msgId
        self.reserve = reserve
        self.newest = newest
        self.db: sqlite3.Connection = None  # type: ignore[assignment]  # set by `open`
        self._cache = cache  # most mailboxes and chats kept
        self._pairs = pairs  # most routes kept
        self._mailboxes: dict[int, Mailbox] = {}
        self._queues: dict[int, Queue] = {}
        self._routes: dict[tuple[int, int], Route] = {}
        self._chats: dict[str, int] = {}
        self._message_rows: list[Any] = []
        self._dirty: dict[int, Queue] = {}  # queues whose position changed in this batch
        self._known: dict[tuple[int, str], int] = {}  # clientIds: msgId
        self._owed: dict[int, tuple[int, int]] = {}  # acks that could not be written yet
        self._id_given = False  # a msgId was given that stands in no message row
        self.acked = 0  # messages acked since the start
        self.syncs = Histogram(SECONDS)  # how long a COMMIT with its sync took
        self._moved = 0  # messages acked in this batch
        self.deliveries: list[Delivery] = []  # of the operation being applied
        self.signals: list[Any] = []  # of the operation being applied

    def open(self, db: sqlite3.Connection) -> None:
        """Take the connection over and find where msgIds stand."""
        self.db = db
        self.next_id = newest_in(db) + 1
        self.client_keys.open(db)
        self.newest.open(self.next_id - 1)

    # --- batches --------------------------------------------------------------------------

    @property
    def full_batch(self) -> bool:
        """True when the batch should be committed before more is applied."""
        rows = (self._written + len(self._queue_rows.rows)) // 3
        return self._bounded and rows >= self.batch_rows

    def commit(self, acks: dict[int, tuple[int, int]], operations: Sequence[Operation]) -> int:
        """Commit a batch with one sync; each operation carries its own outcome afterwards.

        Returns how many operations are finished; those behind them are to be committed again,
        and the first of them may be committed in part. Raises Busy if nothing was done because
        another program holds the database, and StoreFailed if a write or sync failed: then
        nothing of the batch may be confirmed.
        """
        for device, (seq, message) in self._owed.items():
            known = acks.get(device, (0, 0))
            acks[device] = (max(seq, known[0]), max(message, known[1]))
        self._owed = {}
        if self.reserve.spent and not self.reserve.refill():
            self._commit_small(acks, operations)
            return len(operations)
        try:
            return self._transact(acks, operations)
        except sqlite3.Error as problem:
            self._roll_back()
            kind = failure_kind(problem)
            if kind == "full":
                self.reserve.spend()
                self._commit_small(acks, operations)
            elif kind == "busy":
                raise Busy from problem
            elif kind == "failed":
                raise StoreFailed(f"the store failed: {problem}") from problem
            else:
                self._commit_singly(acks, operations)
        except Exception:
            self._roll_back()
            self._commit_singly(acks, operations)
        return len(operations)

    def _commit_small(
        self, acks: dict[int, tuple[int, int]], operations: Sequence[Operation]
    ) -> None:
        """Commit what the reserve is for; refuse what needs space with 4007."""
        small = [operation for operation in operations if not operation.grows]
        for operation in operations:
            if operation.grows:
                operation.error = Refusal(Status.DISK_FULL)
        self._commit_singly(acks, small)

    def _commit_singly(
        self, acks: dict[int, tuple[int, int]], operations: Sequence[Operation]
    ) -> None:
        """Commit each operation on its own, so that only the bad one fails."""
        if acks and self._commit_one(acks, ()) is not None:
            self._owed = acks
        self._bounded = False
        for operation in operations:
            operation.error = self._commit_one({}, (operation,)) or operation.error
        self._bounded = True

    def _commit_one(
        self, acks: dict[int, tuple[int, int]], operations: Sequence[Operation]
    ) -> BaseException | None:
        try:
            self._transact(acks, operations)
        except sqlite3.Error as problem:
            self._roll_back()
            kind = failure_kind(problem)
            if kind == "full":
                self.reserve.spend()
                return Refusal(Status.DISK_FULL)
            if kind == "busy":
                return Refusal(Status.RESTARTING, "the store is busy", retry_after=3)
            if kind == "failed":
                raise StoreFailed(f"the store failed: {problem}") from problem
            return problem
        except Exception as problem:
            self._roll_back()
            return problem
        return None

    def _transact(self, acks: dict[int, tuple[int, int]], operations: Sequence[Operation]) -> int:
        self._written = 0
        first_id = self.next_id
        self._moved = 0
        self.db.execute("BEGIN IMMEDIATE")
        self.now = self.clock.wall()
        self.date = self.dates.text(self.now)
        self._tail = tail_of(self.date, self.now)
        for device, (seq, message) in acks.items():
            self._ack(device, seq, message)
        self._look_up_client_ids(operations)
        finished = 0
        for operation in operations:
            operation.error = None
            self.deliveries = operation.deliveries = []
            self.signals = operation.signals = []
            if not operation.apply(self):
                break
            finished += 1
            if self.full_batch:
                break
        self.flush()
        self.save_positions()
        self.marks.flush(self.db)
        if self.next_id > first_id:
            # A batch that stores nothing takes no space either.
            self._queue_rows.settle(self.db, self._written // 3)
            self._chat_rows.settle(self.db, self.next_id - first_id)
            self.client_keys.settle(self.db, self.next_id - first_id)
        begin = self.clock.now()
        self.db.execute("COMMIT")
        self.syncs.add(self.clock.now() - begin)
        self.acked += self._moved
        self.client_keys.committed()
        if self.next_id > first_id:
            self.newest.note(self.next_id - 1)
        self.marks.committed(first_id, self.next_id, self.clock)
        self._trim()
        return finished

    def _roll_back(self) -> None:
        """Undo the transaction and forget everything that was learnt in it."""
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")
        for cache in (self._mailboxes, self._queues, self._routes, self._chats, self._dirty):
            cache.clear()
        self.groups.clear()
        self._chat_rows.rolled_back()
        self.client_keys.rolled_back()
        self.marks.rolled_back()
        self._known.clear()
        self._message_rows.clear()
        self._queue_rows.rolled_back()

    def _trim(self) -> None:
        """Keep the caches within their bounds; between batches, for queues are changed in them."""
        self._dirty.clear()
        self._known.clear()
        self.groups.trim()
        while len(self._mailboxes) > self._cache:
            self.forget_account(next(iter(self._mailboxes)))
        while len(self._routes) > self._pairs:
            del self._routes[next(iter(self._routes))]
        while len(self._chats) > self._pairs:
            del self._chats[next(iter(self._chats))]

    def flush(self) -> None:
        """Write the gathered rows, so that statements see them."""
        if self._message_rows:
            insert_rows(self.db, MESSAGE_HEAD, 10, self._message_rows, row=MESSAGE_ROW)
            self._message_rows = []
            self._chat_rows.flush(self.db)
        self._written += len(self._queue_rows.rows)
        self._queue_rows.flush(self.db)

    def save_positions(self) -> None:
        """Write where the queues stand that changed in this batch."""
        rows: list[int] = []
        for queue in self._dirty.values():
            rows += (queue.device, queue.last, queue.acked, queue.message, queue.acked_at)
        insert_rows(self.db, POSITION_HEAD, 5, rows, POSITION_TAIL)
        if self._id_given:
            self.keep_next_id()

    def keep_next_id(self) -> None:
        """Store where msgIds stand, for ids that stand in no message row."""
        upsert = "INSERT INTO meta VALUES ('msg_id', ?1) ON CONFLICT (key) DO UPDATE SET value = ?1"
        self.db.execute(upsert, (str(self.next_id - 1),))
        self._id_given = False

    # --- caches ---------------------------------------------------------------------------

    def mailbox(self, account: int) -> Mailbox | None:
        """Give the mailbox of an account; None for a user that does not exist."""
        box = self._mailboxes.get(account)
        if box is None:
            self._load_mailboxes((account,))
            box = self._mailboxes.get(account)
        return box

    def _load_mailboxes(self, accounts: Sequence[int]) -> None:
        """Read mailboxes; nothing is noted of users that do not exist."""
        known = self.db.execute(_ACCOUNTS_OF, (json.dumps(accounts),)).fetchall()
        those = (json.dumps([account for account, _, _ in known]),)
        queues: dict[int, list[Queue]] = {account: [] for account, _, _ in known}
        for account, device, waiting, since, *position in self.db.execute(_QUEUES_OF, those):
            queue = Queue(device, account, bool(waiting), since, tuple(position))
            queue.deleted = queue.acked
            queues[account].append(queue)
            self._queues[device] = queue
        for account, generation, disabled in known:
            line = next(queue for queue in queues[account] if queue.waiting)
            box = Mailbox(account, generation, bool(disabled), line)
            box.devices = {each.device: each for each in queues[account] if not each.waiting}
            self._mailboxes[account] = box
        for device, seq, holes, open_ in self.db.execute(_GAPS_OF, those).fetchall():
            queue = self._queues[device]
            queue.holes += holes
            if open_:
                queue.gap = seq
                query = "SELECT chat FROM gap_chat WHERE device = ? AND seq = ?"
                queue.gap_chats = {row[0] for row in self.db.execute(query, (device, seq))}

    def queue(self, device: int) -> Queue | None:
        """Give the queue of a device; None when the device is gone."""
        known = self._queues.get(device)
        if known is not None:
            return known
        query = "SELECT account FROM device WHERE id = ?"
        found = self.db.execute(query, (device,)).fetchone()
        if found is None or self.mailbox(found[0]) is None:
            return None
        return self._queues.get(device)

    def forget_account(self, account: int) -> None:
        """Forget what is cached of an account whose devices or rights change."""
        box = self._mailboxes.pop(account, None)
        if box is None:
            return
        queues = (box.line, *box.devices.values())
        if any(queue.device in self._dirty for queue in queues):
            self.save_positions()
        for queue in queues:
            self._queues.pop(queue.device, None)
            self._dirty.pop(queue.device, None)

    def forget_routes(self, account: int) -> None:
        """Forget what is cached between an account and anybody."""
        for pair in [pair for pair in self._routes if account in pair]:
            del self._routes[pair]

    def forget_pair(self, one: int, other: int) -> None:
        """Forget what is cached between two people, both ways."""
        self._routes.pop((one, other), None)
        self._routes.pop((other, one), None)

    def box_of(self, actor: Actor) -> Mailbox | None:
        """Give the mailbox of a login; None if an earlier operation revoked it."""
        box = self._mailboxes.get(actor.account) or self.mailbox(actor.account)
        if box is None or box.disabled:
            return None
        if actor.device:
            return box if actor.device in box.devices else None
        return box if actor.generation == box.generation else None

    def check(self, actor: Actor) -> None:
        """Refuse a login that was revoked."""
        if self.box_of(actor) is None:
            raise Refusal(Status.ERROR_NET)

    def route(self, sender: int, to: int) -> Route | None:
        """Tell what holds between two people; None if the other does not exist."""
        route = self._routes.get((sender, to))
        if route is None and (box := self.mailbox(to)) is not None and not box.disabled:
            query = (
                "SELECT EXISTS (SELECT 1 FROM friendship WHERE account = ?1 AND friend = ?2),"
                " EXISTS (SELECT 1 FROM block WHERE account = ?2 AND blocked = ?1)"
            )
            friends, blocked = self.db.execute(query, (sender, to)).fetchone()
            open_ = bool(friends or self.strangers) and not blocked and sender != to
            chat = self.find_chat(pair_key(sender, to))
            route = Route(chat, sender, to, bool(friends), bool(blocked), open_)
            self._routes[sender, to] = route
        return route

    def find_chat(self, key: str) -> int:
        """Give the number of a chat; 0 while there is none."""
        chat = self._chats.get(key, 0)
        if not chat:
            found = self.db.execute("SELECT id FROM chat WHERE key = ?", (key,)).fetchone()
            if found is not None:
                chat = self._chats[key] = found[0]
        return chat

    def chat(self, key: str, kind: str, members: Iterable[int]) -> int:
        """Give the number of a chat, made if there is none yet."""
        chat = self.find_chat(key)
        if not chat:
            add = "INSERT INTO chat (key, kind) VALUES (?, ?) RETURNING id"
            chat = self.db.execute(add, (key, kind)).fetchone()[0]
            insert_rows(
                self.db,
                "INSERT INTO member (chat, account)",
                2,
                [value for member in members for value in (chat, member)],
            )
            self._chats[key] = chat
        return chat

    # --- messages -------------------------------------------------------------------------

    def message_id(self) -> int:
        """Give out the next msgId."""
        number = self.next_id
        self.next_id += 1
        return number

    def store_message(
        self,
        chat: int,
        sender: int,
        body: str,
        text: str | None,
        client_id: str = "",
        client_key: int = 0,
        expire: int = 0,
    ) -> tuple[int, bytes]:
        """Gather the row of a new message; returns its msgId and its JSON behind the seq."""
        number = self.next_id
        self.next_id = number + 1
        now = self.now
        expires = now + expire * 1000 if expire else 0
        data = body.encode()
        self._message_rows += (
            number,
            chat,
            sender,
            now,
            body,
            text,
            client_id,
            client_key,
            expires,
            checksum(number, chat, now, data),
        )
        self._chat_rows.rows += (chat, number)
        if client_key:
            self.client_keys.added[client_key] = number
        return number, b'"msgId":"%d",%b%b' % (number, data, self._tail)

    def enqueue(self, queue: Queue, chat: int, message: int, rest: bytes) -> None:
        """Put a message into a queue, or note in its gap that it is not there."""
        last = queue.last
        if last - queue.acked - queue.holes >= self.queue_limit:
            self._miss(queue, chat, message)
            return
        queue.last = seq = last + 1
        device = queue.device
        self._queue_rows.rows += (device, seq, message)
        self._dirty[device] = queue
        self.deliveries.append((device, seq, message, rest))

    def _miss(self, queue: Queue, chat: int, message: int) -> None:
        """Let the gap at the end of a full queue speak for a message."""
        device = queue.device
        if not queue.gap or queue.gap != queue.last:
            number = self.message_id()
            self._id_given = True
            queue.last = queue.gap = seq = queue.last + 1
            queue.gap_chats = set()
            self._queue_rows.rows += (device, seq, number)
            self._dirty[device] = queue
            values = (device, seq, seq, number, self.now, 1)
            self.db.execute("INSERT INTO gap VALUES (?, ?, ?, ?, ?, ?)", values)
            self.deliveries.append((device, seq, number, None))
        if chat in queue.gap_chats or len(queue.gap_chats) >= GAP_CHATS:
            return
        queue.gap_chats.add(chat)
        names = (device, queue.gap, chat, message - 1)
        self.db.execute("INSERT INTO gap_chat VALUES (?, ?, ?, ?)", names)

    def deliver(
        self, box: Mailbox, chat: int, message: int, rest: bytes, *, without: int = 0
    ) -> None:
        """Put a message into every queue of an account but that of one device."""
        for queue in box.queues:
            if queue.device != without:
                self.enqueue(queue, chat, message, rest)

    def notice(self, account: int, text: str, event: bytes, *, without: int = 0) -> None:
        """Send a message of the server's own to an account, in its system chat."""
        box = self.mailbox(account)
        if box is None:
            return
        chat = self.chat(system_key(account), "system", (account,))
        infos = text_infos(text)
        body = (
            f'"chatId":"{SYSTEM_CHAT}","fromId":"","toId":"{account}","type":"0",'
            f'"info":{infos},"event":{event.decode()}'
        )
        number, rest = self.store_message(chat, 0, body, fold(text))
        self.deliver(box, chat, number, rest, without=without)

    def group_notice(self, group: Group, text: str, event: dict[str, object]) -> int:
        """Send a message of the server's own to all who are in a group; gives its msgId."""
        body, folded = notice_body(group.key, text, event)
        number, rest = self.store_message(group.chat, 0, body, folded)
        self.fan_out(group, number, rest)
        return number

    def fan_out(self, group: Group, message: int, rest: bytes, *, sender: int = 0) -> None:
        """Put a message into the queues of all who are in a group, but for its sender."""
        chat = group.chat
        enqueue = self.enqueue
        boxes = self._mailboxes
        missing = [account for account in group.members if account not in boxes]
        for start in range(0, len(missing), LOADED_AT_ONCE):
            self._load_mailboxes(missing[start : start + LOADED_AT_ONCE])
        for account in group.members:
            box = boxes.get(account)
            if account != sender and box is not None:
                for queue in box.queues:
                    enqueue(queue, chat, message, rest)

    # --- clientIds ------------------------------------------------------------------------

    def _look_up_client_ids(self, operations: Sequence[Operation]) -> None:
        wanted: list[int] = []
        for operation in operations:
            wanted += getattr(operation, "client_keys", ())
        start, left = 0, len(wanted)
        while left:
            count = min(512, 1 << (left.bit_length() - 1))
            end = start + count
            for sender, client_id, number in self.db.execute(_client_sql(count), wanted[start:end]):
                self._known[sender, client_id] = number
            start, left = end, left - count
        # The newest come last: of two messages with one clientId only the newer one counts.
        for message in self.client_keys.find(wanted):
            self._look_up(message)

    def _look_up(self, message: int) -> None:
        """Note the clientId of a message."""
        query = "SELECT sender, client_id FROM message WHERE id = ?"
        for sender, client_id in self.db.execute(query, (message,)):
            self._known[sender, client_id] = message

    def fresh(self, sender: int, draft: Draft) -> bool:
        """Tell for certain that no message of the sender's has the clientId of a draft."""
        if draft.client_key in self.client_keys.added:
            return False
        return not self._known or (sender, draft.client_id) not in self._known

    def _earlier(self, sender: int, draft: Draft) -> int | None:
        """Give the message that has the clientId of a draft."""
        message = self.client_keys.added.get(draft.client_key)
        if message is not None:
            # It is of this batch, and its row may not be written yet.
            self.flush()
            self._look_up(message)
        return self._known.get((sender, draft.client_id))

    def home(self, sender: int, draft: Draft) -> str:
        """Give the chatId of the message that has the clientId of a draft; "" if none has."""
        known = self._earlier(sender, draft) if draft.client_id else None
        if known is None:
            return ""
        self.flush()
        query = (
            "SELECT c.key FROM message m JOIN chat c ON c.id = m.chat"
            " WHERE m.id = ? AND m.created >= ?"
        )
        row = self.db.execute(query, (known, self.now - self.client_id_ms)).fetchone()
        return "" if row is None else str(row[0])

    def repeat(self, sender: int, draft: Draft, body: str) -> Accepted | None:
        """Confirm a message again that was stored under its clientId; None if it is new.

        Raises Refusal if the clientId stands for other content.
        """
        number = self._earlier(sender, draft) if draft.client_id else None
        if number is None:
            return None
        self.flush()
        query = (
            "SELECT m.created, m.original, c.key, m.chat, CAST(m.body AS BLOB), m.checksum"
            " FROM message m JOIN chat c ON c.id = m.chat WHERE m.id = ?"
        )
        created, original, key, *stored = self.db.execute(query, (number,)).fetchone()
        if created < self.now - self.client_id_ms:
            del self._known[sender, draft.client_id]
            return None
        if not _is_same(number, created, original, body, *stored):
            raise Refusal(
                Status.BAD_FIELD, "this clientId stands for another message", field="clientId"
            )
        return Accepted(number, key, created)

    # --- acks -----------------------------------------------------------------------------

    def check_acks(self, device: int) -> None:
        """Refuse to say that a device's acks are committed while they could not be written."""
        if device in self._owed:
            raise Refusal(Status.DISK_FULL)

    def forget_acks(self, device: int) -> None:
        """Drop acks that could not be written: their connection is replaced by another one."""
        self._owed.pop(device, None)

    def _ack(self, device: int, seq: int, message: int) -> None:
        queue = self.queue(device)
        if queue is None or seq <= queue.acked:
            return
        before, queue.acked = queue.acked, min(seq, queue.last)
        self._moved += queue.acked - before
        if message > queue.message:
            if self.now >= queue.mark_due:
                self.marks.ack(queue, message, self.now)
            queue.message = message
        queue.acked_at = self.now
        self._dirty[device] = queue
        if queue.holes:
            query = (
                "SELECT coalesce(sum(seq - max(seq_from, ?2 + 1)), 0) FROM gap"
                " WHERE device = ?1 AND seq > ?2"
            )
            queue.holes = self.db.execute(query, (device, queue.acked)).fetchone()[0]
        if queue.acked - queue.deleted >= DELETE_RANGE:
            self.delete_acked(queue)

    def delete_acked(self, queue: Queue) -> None:
        """Remove the rows of a queue that are acked."""
        for table in QUEUE_TABLES:
            remove = f"DELETE FROM {table} WHERE device = ? AND seq <= ?"
            self.db.execute(remove, (queue.device, queue.acked))
        queue.deleted = queue.acked

    def touch(self, queue: Queue) -> None:
        """Have a queue's position written with this batch."""
        self._dirty[queue.device] = queue


def _is_same(
    number: int,
    created: int,
    original: bytes | None,
    body: str,
    chat: int,
    stored: bytes,
    sum_: int | None,
) -> bool:
    """Tell whether a message says what was stored, or what was recalled since."""
    if original is not None:
        return original == digest(body)
    # Of a damaged one nobody can tell what it said; it must not be stored a second time.
    return stored == body.encode() or not sound(number, chat, created, stored, sum_)


@lru_cache(maxsize=16)
def _client_sql(count: int) -> str:
    values = ",".join(["(?)"] * count)
    return (
        f"WITH k (key) AS (VALUES {values}) SELECT m.sender, m.client_id, m.id FROM k"
        " CROSS JOIN client_key c ON c.key = k.key CROSS JOIN message m ON m.id = c.message"
    )
