"""Messages: pages of a queue, histories and chats, read marks, recall, and what expires."""

import sqlite3
from contextlib import closing
from typing import Any

import msgspec
import structlog

from ..draft import user_number
from ..encoding import encode
from ..errors import Refusal
from ..model import MAX_INT, SYSTEM_CHAT, Actor, StatusOut, UserOut
from ..names import fold
from ..outbox import Entry, with_seq
from ..status import Status
from .accounts import USER, user_out
from .groups import GROUP, group_out
from .indexes import in_both, newest_of
from .journal import Journal
from .noun import Noun, reads, writes
from .posting import own_copy
from .records import checksum, digest, pair_key, rest_of, sound, system_key, whole

# The body is read as bytes, for a damaged one may be no text.
BODY = "CAST(m.body AS BLOB), m.chat, m.checksum"
COLUMNS = f"m.id, m.created, {BODY}, m.sender, m.client_id"
PAGE = (
    f"SELECT q.seq, q.message, m.created, {BODY}, m.sender, m.client_id, m.expires"
    " FROM queue q LEFT JOIN message m ON m.id = q.message"
    " WHERE q.device = ? AND q.seq > ? AND q.seq <= ? ORDER BY q.seq LIMIT ?"
)
# The same of a message that an index over chats names.
LISTED = f"i.message, m.created, {BODY}, m.sender, m.client_id"
# A message that may still be shown.
SHOWN = "(m.expires IS NULL OR m.expires > {now})"
# What somebody may read of a chat: in a group only from joining to leaving.
WITHIN = "{id} > b.first AND (b.final IS NULL OR {id} <= b.final)"
# The most chats that a gap names.
GAP_NAMES = 100
GAP_TEXT = "Some messages are only in the history."


# What stands in a history for a message that is not what was written.
DAMAGED = (
    b'"chatId":"","fromId":"","toId":"","type":"0",'
    b'"info":[{"category":"0","content":"This message was damaged on the server."}]'
)

log = structlog.get_logger("pushd.store")


class OpenGapError(Exception):
    """A page holds a gap that still collects; it must be sealed before it is read."""


class Messages(Noun):
    """The verbs of messages; lists of messages are finished JSON."""

    reply_limit = 1_000_000  # bytes of messages in one list
    damaged = 0  # messages that were read since the start and are not what was written

    # --- queues ---------------------------------------------------------------------------

    async def page(
        self, device: int, account: int, after: int, upto: int, count: int, size: int
    ) -> list[Entry]:
        """Read the queue behind `after` up to `upto`: `count` messages, `size` bytes and one more.

        Gaps in it collect no more from now on. An empty page comes back when the loop has heard of
        all that was committed before it was read: so of what has ended the device, if it is dead.
        """
        try:
            page = await self._page(device, account, after, upto, count, size)
        except OpenGapError:
            await self.seal(device, upto)
            page = await self._page(device, account, after, upto, count, size)
        if not page:
            await self.writer.barrier()
        return page

    @reads()
    def _page(
        self,
        db: sqlite3.Connection,
        device: int,
        account: int,
        after: int,
        upto: int,
        count: int,
        size: int,
    ) -> list[Entry]:
        now = self.clock.wall()
        page: list[Entry] = []
        last = run = after  # a run of expired messages began behind `run`
        in_run = False
        second, date = -1, ""  # that was written last
        # An unfinished cursor would keep its old view of the store for the reads after it.
        with closing(db.execute(PAGE, (device, after, upto, count))) as rows:
            for seq, message, created, body, chat, sum_, sender, client_id, expires in rows:
                expired = body is not None and expires is not None and expires <= now
                if body is None or expired or not self._holds(message, chat, created, body, sum_):
                    if expired and in_run:
                        # One gap speaks for all of them.
                        page.pop()
                    else:
                        run = last
                    # Of a damaged one the chat is known, where its place in the history is.
                    data = self._gap(db, device, seq, run + 1, message, 0 if expired else chat)
                else:
                    if created // 1000 != second:
                        second, date = created // 1000, self.dates.text(created)
                    if sender == account:
                        rest = own_copy(rest_of(message, body, date, created), client_id)
                        data = with_seq(seq, rest)
                    else:
                        data = whole(seq, message, body, date, created)
                in_run = expired
                page.append((seq, message, data))
                last = seq
                size -= len(data)
                if size <= 0:
                    break
        return page

    def _gap(
        self,
        db: sqlite3.Connection,
        device: int,
        seq: int,
        seq_from: int,
        message: int,
        chat: int | None,
    ) -> bytes:
        """Encode the gap that stands for all seqs from `seq_from` to `seq`."""
        query = "SELECT open, created FROM gap WHERE device = ? AND seq = ?"
        found = db.execute(query, (device, seq)).fetchone()
        if found is not None and found[0]:
            raise OpenGapError
        created = found[1] if found else self.clock.wall()
        query = (
            "SELECT c.key, g.after FROM gap_chat g JOIN chat c ON c.id = g.chat"
            " WHERE g.device = ? AND g.seq = ? ORDER BY g.after LIMIT ?"
        )
        rows = db.execute(query, (device, seq, GAP_NAMES + 1)).fetchall()
        if chat:
            rows = db.execute(
                "SELECT key, ? FROM chat WHERE id = ?", (message - 1, chat)
            ).fetchall()
        event: dict[str, Any] = {"name": "gap", "seqFrom": seq_from}
        event["chats"] = [
            {"chatId": shown_key(key), "after": str(after)} for key, after in rows[:GAP_NAMES]
        ]
        if len(rows) > GAP_NAMES:
            event["more"] = True
        body = (
            f'"chatId":"{SYSTEM_CHAT}","fromId":"","toId":"","type":"0","info":'
            f'[{{"category":"0","content":"{GAP_TEXT}"}}],"event":{encode(event).decode()}'
        )
        return with_seq(seq, rest_of(message, body.encode(), self.dates.text(created), created))

    @writes(grows=False)
    def seal(self, journal: Journal, device: int, upto: int) -> None:
        """Let the gaps of a queue up to a seq collect no more; what comes next is a new one."""
        change = "UPDATE gap SET open = 0 WHERE device = ? AND seq <= ? AND open"
        journal.db.execute(change, (device, upto))
        queue = journal.queue(device)
        if queue is not None and queue.gap <= upto:
            queue.gap = 0

    # --- what people read -----------------------------------------------------------------

    @reads()
    def history(
        self, db: sqlite3.Connection, viewer: int, key: str, before: int, after: int, limit: int
    ) -> tuple[list[bytes], str]:
        """Read a chat of the viewer's, oldest first: the newest, or what is before or after an id.

        Gives the messages and the id to go on with, "" at the end. Raises Refusal 4005 for a pair
        with a user that never was.
        """
        query = (
            "SELECT c.id, b.first, b.final FROM chat c JOIN member b ON b.chat = c.id"
            " AND b.account = ? WHERE c.key = ?"
        )
        found = db.execute(query, (viewer, key)).fetchone()
        if found is None:
            peer = peer_of(key, viewer)
            if key.startswith("g"):
                raise _no_such_chat()
            if peer and not db.execute("SELECT 1 FROM account WHERE id = ?", (peer,)).fetchone():
                raise _no_such_chat()
            return [], ""
        chat, first, final = found
        order = "ASC" if after >= 0 else "DESC"
        # Both bounds are exclusive.
        low, high = max(first, after), MAX_INT if final is None else final + 1
        if after < 0:
            high = min(high, before)
        both = in_both(
            f"SELECT {LISTED} FROM {{part}} i JOIN message m ON m.id = i.message WHERE i.chat = ?1"
            f" AND i.message > ?2 AND i.message < ?3 AND {SHOWN.format(now='?4')}"
        )
        rows = db.execute(
            f"{both} ORDER BY 1 {order} LIMIT ?5", (chat, low, high, self.clock.wall(), limit + 1)
        )
        items, more = self._bounded(rows, viewer, limit)
        more_from = str(items[-1][0]) if more else ""
        if after < 0:
            items.reverse()
        return [item[1] for item in items], more_from

    @reads()
    def chat_keys(self, db: sqlite3.Connection, viewer: int) -> list[str]:
        """List the keys of all chats that somebody may read."""
        query = "SELECT c.key FROM member b JOIN chat c ON c.id = b.chat WHERE b.account = ?"
        return [row[0] for row in db.execute(f"{query} ORDER BY c.id", (viewer,))]

    @reads(long=True)
    def search(
        self,
        db: sqlite3.Connection,
        viewer: int,
        text: str,
        key: str,
        before: int,
        skip: int,
        limit: int,
    ) -> tuple[list[bytes], str]:
        """Find messages that hold a text in the viewer's chats, newest first; no recalled ones."""
        both = in_both(
            f"SELECT {LISTED} FROM member b JOIN chat c ON c.id = b.chat"
            " JOIN {part} i ON i.chat = b.chat JOIN message m ON m.id = i.message"
            f" WHERE b.account = ?1 AND (?2 = '' OR c.key = ?2) AND {WITHIN.format(id='i.message')}"
            f" AND i.message < ?3 AND {SHOWN.format(now='?4')} AND instr(m.text, ?5) > 0"
        )
        rows = db.execute(
            f"{both} ORDER BY 1 DESC LIMIT ?6 OFFSET ?7",
            (viewer, key, before, self.clock.wall(), fold(text), limit + 1, skip),
        )
        items, more = self._bounded(rows, viewer, limit)
        return [item[1] for item in items], str(items[-1][0]) if more else ""

    def _bounded(
        self, cursor: sqlite3.Cursor, viewer: int, limit: int
    ) -> tuple[list[tuple[int, bytes]], bool]:
        """Encode rows up to the count or size of a reply; says whether more follow."""
        items: list[tuple[int, bytes]] = []
        size = 0
        with closing(cursor) as rows:
            for row in rows:
                data = self._message(row, viewer)
                size += len(data) + 1
                if len(items) == limit or (items and size > self.reply_limit):
                    return items, True
                items.append((row[0], data))
        return items, False

    def _message(self, row: tuple[Any, ...], viewer: int) -> bytes:
        number, created, body, chat, sum_, sender, client_id = row
        if body is None or not self._holds(number, chat, created, body, sum_):
            body = DAMAGED
        rest = rest_of(number, body, self.dates.text(created), created)
        if sender == viewer:
            rest = own_copy(rest, client_id)
        return b"{" + rest

    def _holds(self, number: int, chat: int, created: int, body: bytes, sum_: int | None) -> bool:
        """Tell whether a message is what was written; one that is not is counted and logged."""
        if sound(number, chat, created, body, sum_):
            return True
        self.damaged += 1
        log.error("a message is damaged", message=number)
        return False

    @reads(long=True)
    def chats(
        self, db: sqlite3.Connection, viewer: int, before: int, skip: int, size: int
    ) -> tuple[list[dict[str, Any]], str]:
        """List the viewer's chats by their newest message, newest first, each with its counts."""
        now = self.clock.wall()
        newest = newest_of(
            "SELECT i.message FROM {part} i JOIN message m ON m.id = i.message"
            f" WHERE i.chat = b.chat AND {WITHIN.format(id='i.message')}"
            f" AND {SHOWN.format(now='?2')} ORDER BY i.message DESC LIMIT 1"
        )
        rows = db.execute(
            f"WITH mine AS (SELECT b.chat, b.read, b.final, {newest} AS last FROM member b"
            " WHERE b.account = ?1)"
            " SELECT mine.chat, c.key, c.kind, mine.read, mine.last FROM mine JOIN chat c"
            " ON c.id = mine.chat WHERE mine.last < ?3 ORDER BY mine.last DESC LIMIT ?4 OFFSET ?5",
            (viewer, now, before, size + 1, skip),
        ).fetchall()
        listed: list[dict[str, Any]] = []
        total = 0
        for chat, key, kind, read, last in rows[:size]:
            entry = self._chat(db, viewer, chat, key, kind, read, last, now)
            total += len(entry["last"]) + 1024
            if listed and total > self.reply_limit:
                return listed, str(rows[len(listed) - 1][4])
            listed.append(entry)
        return listed, str(rows[size - 1][4]) if len(rows) > size else ""

    def _chat(
        self,
        db: sqlite3.Connection,
        viewer: int,
        chat: int,
        key: str,
        kind: str,
        read: int,
        last: int,
        now: int,
    ) -> dict[str, Any]:
        newest = db.execute(f"SELECT {COLUMNS} FROM message m WHERE m.id = ?", (last,)).fetchone()
        both = in_both(
            "SELECT count(*) AS n FROM {part} i JOIN message m ON m.id = i.message"
            " JOIN member b ON b.chat = i.chat AND b.account = ?1 WHERE i.chat = ?2"
            " AND i.message > ?3 AND m.sender <> b.account AND m.original IS NULL"
            f" AND {WITHIN.format(id='i.message')} AND {SHOWN.format(now='?4')}"
        )
        count = f"SELECT sum(n) FROM ({both})"
        unread = db.execute(count, (viewer, chat, read, now)).fetchone()[0]
        entry: dict[str, Any] = {"chatId": shown_key(key), "kind": kind}
        peer_read = 0
        if kind == "pair":
            peer = peer_of(key, viewer)
            entry["user"] = self._user(db, viewer, peer)
            query = (
                "SELECT iif(a.read_receipts, m.read, 0) FROM member m JOIN account a"
                " ON a.id = m.account WHERE m.chat = ? AND m.account = ?"
            )
            found = db.execute(query, (chat, peer)).fetchone()
            peer_read = found[0] if found else 0
        elif kind != "system":
            row = db.execute(f"{GROUP} WHERE c.id = ?2", (viewer, chat)).fetchone()
            entry["group"] = group_out(row, self.dates.text(row[11]))
        entry["last"] = msgspec.Raw(self._message(newest, viewer))
        return entry | {"unread": unread, "read": str(read), "peerRead": str(peer_read)}

    def _user(self, db: sqlite3.Connection, viewer: int, user: int) -> UserOut:
        row = db.execute(f"{USER} WHERE a.id = ?2", (viewer, user)).fetchone()
        return user_out(row, viewer, self.dates.text(row[9]))

    @reads()
    def status(self, db: sqlite3.Connection, account: int, number: int) -> StatusOut:
        """Tell how far one's own message has come; raises Refusal 4005, and 4004 for another's."""
        row = readable(db, account, number)
        if row[1] != account:
            raise Refusal(Status.NOT_ALLOWED, "this is not your message", field="msgId")
        devices, delivered = db.execute(
            "SELECT count(*), coalesce(sum(p.message >= ?1), 0) FROM member m"
            " JOIN device d ON d.account = m.account AND d.token IS NOT NULL AND d.since < ?1"
            " JOIN position p ON p.device = d.id WHERE m.chat = ?2 AND m.account <> ?3"
            " AND m.first < ?1 AND (m.final IS NULL OR m.final >= ?1)",
            (number, row[0], account),
        ).fetchone()
        query = (
            "SELECT count(*) FROM member m JOIN account a ON a.id = m.account"
            " WHERE m.chat = ?1 AND m.account <> ?2 AND m.read >= ?3 AND m.first < ?3"
            " AND a.read_receipts"
        )
        # Who joined later has their mark above what was said before, and has not read it.
        read = db.execute(query, (row[0], account, number)).fetchone()[0]
        return StatusOut(self.dates.text(row[2]), devices, delivered, read)

    # --- changes --------------------------------------------------------------------------

    @writes(grows=False)
    def mark_read(self, journal: Journal, actor: Actor, key: str, upto: int) -> None:
        """Move the caller's read mark of a chat to a msgId, or to what their device has acked.

        It never moves back. Raises Refusal 4005 for a chat that is not theirs.
        """
        db, account = journal.db, actor.account
        query = (
            "SELECT b.chat, b.read, coalesce(b.final, ?) FROM chat c JOIN member b ON b.chat = c.id"
            " AND b.account = ? WHERE c.key = ?"
        )
        found = db.execute(query, (MAX_INT, account, key)).fetchone()
        if found is None:
            raise Refusal(Status.NOT_FOUND, "no such chat", field="message.chatId")
        chat, read, final = found
        if not upto:
            queue = journal.queue(actor.device) if actor.device else None
            upto = queue.message if queue else 0
        newest = newest_of("SELECT max(message) FROM {part} WHERE chat = ?1 AND message <= ?2")
        mark = db.execute(f"SELECT {newest}", (chat, min(upto, final))).fetchone()[0] or 0
        if mark <= read:
            return
        change = "UPDATE member SET read = ?, read_at = ? WHERE chat = ? AND account = ?"
        db.execute(change, (mark, journal.now, chat, account))
        journal.marks.read(chat, account, read, mark, journal.now)
        peer = peer_of(key, account)
        query = "SELECT read_receipts FROM account WHERE id = ?"
        told = bool(db.execute(query, (account,)).fetchone()[0])
        journal.signals.append(("read", account, actor.device, peer, shown_key(key), mark, told))

    @writes()
    def recall(self, journal: Journal, actor: Actor, number: int, since: int) -> None:
        """Put a stub in the place of one's own message that was sent since then (ms).

        A group's owner and admins recall anybody's at any time. The others are told by an event.
        Raises Refusal 4005, 4004 for another's or an old one, or for who is out of the group;
        a second recall changes nothing.
        """
        account = actor.account
        chat, sender, created = readable(journal.db, account, number)
        query = (
            "SELECT CAST(m.body AS BLOB), m.checksum, m.original, c.key"
            " FROM message m JOIN chat c ON c.id = m.chat WHERE m.id = ?"
        )
        stored, sum_, original, key = journal.db.execute(query, (number,)).fetchone()
        group = journal.groups.find(journal.db, key)
        leads = sender and group is not None and group.rank(account) > 0
        if sender != account and not leads:
            raise Refusal(Status.NOT_ALLOWED, "this is not your message", field="msgId")
        if key.startswith("g") and (group is None or account not in group.members):
            raise Refusal(Status.NOT_ALLOWED, "you are not in this group any more", field="msgId")
        if original is not None:
            return
        if created < since and not leads:
            raise Refusal(Status.NOT_ALLOWED, "it is too late to recall this", field="msgId")
        if not sound(number, chat, created, stored, sum_):
            raise Refusal(Status.NOT_FOUND, "this message was damaged on the server", field="msgId")
        body = stored.decode()
        stub = stub_of(body)
        data = stub.encode()
        journal.db.execute(
            "UPDATE message SET body = ?, text = NULL, original = ?, recalled = ?, checksum = ?"
            " WHERE id = ?",
            (
                stub,
                digest(body),
                journal.now,
                checksum(number, chat, created, data),
                number,
            ),
        )
        rest = rest_of(number, data, journal.dates.text(created), created)
        event: dict[str, object] = {"name": "recalled", "chatId": shown_key(key)}
        event |= {"msgId": str(number), "by": str(account)}
        text = "A message was recalled."
        query = "SELECT account FROM member WHERE chat = ?"
        users = [row[0] for row in journal.db.execute(query, (chat,))]
        # Where it was not delivered yet the stub is, also to those who are out since.
        journal.signals += [("recalled", user, number, rest) for user in users]
        if group is not None:
            journal.group_notice(group, text, event)
            return
        for user in users:
            without = actor.device if user == account else 0
            journal.notice(user, text, encode(event), without=without)

    @writes(grows=False)
    def free_client_ids(self, journal: Journal, before: int, most: int) -> int:
        """Let clientIds of messages from before then (ms) be used again; gives 0 at the end."""
        query = "SELECT coalesce(value, '0') FROM meta WHERE key = 'client_ids'"
        row = journal.db.execute(query).fetchone()
        start = int(row[0]) if row else 0
        query = "SELECT max(id) FROM (SELECT id FROM message WHERE id > ? AND created < ? LIMIT ?)"
        end = journal.db.execute(query, (start, before, most)).fetchone()[0]
        if end is None:
            return 0
        query = (
            "SELECT client_key, id FROM message WHERE id > ? AND id <= ? AND created < ?"
            " AND client_key IS NOT NULL"
        )
        freed = journal.db.execute(query, (start, end, before)).fetchall()
        journal.client_keys.free(journal.db, freed)
        upsert = "INSERT INTO meta VALUES ('client_ids', ?1)"
        upsert += " ON CONFLICT (key) DO UPDATE SET value = ?1"
        journal.db.execute(upsert, (str(end),))
        return int(end - start)


def key_for(viewer: int, chat: str, peer: int, field: str = "chatId") -> str:
    """Give the key of the chat that somebody names by its chatId, or by a peer.

    Raises Refusal 4005 for a pair that the viewer is not one of; that they are in a group is
    checked where it is read.
    """
    if peer:
        return pair_key(viewer, peer)
    if chat == SYSTEM_CHAT:
        return system_key(viewer)
    if chat.startswith("g"):
        return chat
    low, _, high = (user_number(part) for part in chat.partition("-"))
    # A pair has one chatId: smaller id first.
    if not 0 < low < high or viewer not in (low, high) or chat != f"{low}-{high}":
        raise Refusal(Status.NOT_FOUND, "no such chat", field=field)
    return chat


def shown_key(key: str) -> str:
    """Give the chatId that people see for a key."""
    return SYSTEM_CHAT if key.startswith(f"{SYSTEM_CHAT}/") else key


def peer_of(key: str, account: int) -> int:
    """Give the other one of a pair; 0 when the chat is none."""
    low, dash, high = key.partition("-")
    if not dash:
        return 0
    return int(high) if low == str(account) else int(low)


def _no_such_chat() -> Refusal:
    return Refusal(Status.NOT_FOUND, "no such chat", field="chatId")


def stub_of(body: str) -> str:
    """Give what is left of a message that was recalled."""
    fields = msgspec.json.decode("{" + body + "}")
    kept = {key: fields[key] for key in ("chatId", "fromId", "toId", "type")}
    kept |= {"info": [{"category": "0", "content": ""}], "recalled": True}
    return encode(kept).decode()[1:-1]


def readable(db: sqlite3.Connection, account: int, number: int) -> tuple[int, int, int]:
    """Give chat, sender and time of a message in one of somebody's chats; raises Refusal 4005."""
    row: tuple[int, int, int] | None = db.execute(
        "SELECT m.chat, m.sender, m.created FROM message m JOIN member b ON b.chat = m.chat"
        f" AND b.account = ? WHERE m.id = ? AND {WITHIN.format(id='m.id')}",
        (account, number),
    ).fetchone()
    if row is None:
        raise Refusal(Status.NOT_FOUND, "no such message", field="msgId")
    return row


__all__ = ["Messages", "key_for", "peer_of", "shown_key"]
