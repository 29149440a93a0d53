"""What an operator sends: to some, to a group, or to all, in steps that block nobody.

A mailing is written down with its first step. Each step stores messages for some accounts and how
far it has come in one transaction, so a step is done whole or not at all, and whoever goes on with
a mailing, after whatever crash, sends nothing twice. Its clientId names it.

Accounts that are disabled or gone when their turn comes are skipped; those that register later
get nothing. What it says is forgotten here once it is done.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from ..draft import Draft
from ..errors import Refusal
from ..model import SYSTEM_CHAT
from ..status import Status
from . import references
from .journal import Journal
from .membership import Group
from .noun import Noun, reads, writes
from .records import Mailbox, digest, system_key

# Queue rows of a step, which is one transaction: what others commit waits for one of them.
STEP_ROWS = 100
# The msgIds of a mailing that are told.
MOST_IDS = 1000

MAILING = (
    "SELECT id, content, infos, text, paths, expire, chat, accounts, place, final, reached,"
    " devices, skipped, done FROM mailing WHERE client_id = ?"
)


class Mailing(msgspec.Struct):
    """How far a mailing has come; a place is an account's id, or a number in its list."""

    number: int
    content: bytes
    infos: str
    text: str
    paths: str
    expire: int
    chat: str  # of a group, "" for accounts
    accounts: str  # a list as JSON, "" for all
    place: int  # of the last one that was reached
    final: int
    reached: int  # accounts
    devices: int
    skipped: int  # accounts
    done: int  # when (ms), 0 while it goes on

    def __repr__(self) -> str:
        return f"<Mailing {self.number}: {self.place} of {self.final}>"


class Mailings(Noun):
    """The verbs of mailings."""

    @writes()
    def begin(
        self,
        journal: Journal,
        client_id: str,
        draft: Draft,
        accounts: Sequence[int] | None,
        chat: str = "",
    ) -> Mailing:
        """Write a mailing down and do its first step; one that is there already goes on.

        It goes to these accounts, to the group `chat`, or to all there are now (None). Raises
        Refusal 4003 when the clientId stands for another one, 4005 for an unknown group or file.
        """
        target = chat or (list(accounts) if accounts is not None else "all")
        what = [draft.infos, draft.expire, target]
        content = digest(msgspec.json.encode(what).decode())
        known = _find(journal.db, client_id)
        if known is not None:
            if known.content != content:
                text = "this clientId stands for another message"
                raise Refusal(Status.BAD_FIELD, text, field="clientId")
            return _step(journal, known)
        if chat and journal.groups.find(journal.db, chat) is None:
            raise Refusal(Status.NOT_FOUND, "no such group", field="groupId")
        for path in draft.paths:
            if not journal.db.execute("SELECT 1 FROM file WHERE path = ?", (path,)).fetchone():
                raise Refusal(Status.NOT_FOUND, "no such file", field="info")
        listed = "" if accounts is None else msgspec.json.encode(list(accounts)).decode()
        final = 1 if chat else len(accounts) if accounts is not None else _last(journal.db)
        journal.db.execute(
            "INSERT INTO mailing (client_id, content, infos, text, paths, expire, chat, accounts,"
            " place, final, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?)",
            (
                *(client_id, content, draft.infos, draft.text),
                *(msgspec.json.encode(draft.paths).decode(), draft.expire, chat, listed),
                *(final, journal.now),
            ),
        )
        made = _find(journal.db, client_id)
        assert made is not None, "it was written a moment ago"
        return _step(journal, made)

    @writes()
    def go_on(self, journal: Journal, client_id: str) -> Mailing:
        """Do the next step, if there is one; raises Refusal 4005 for an unknown clientId."""
        found = _find(journal.db, client_id)
        if found is None:
            raise Refusal(Status.NOT_FOUND, "no such mailing", field="clientId")
        return _step(journal, found)

    @reads()
    def message_ids(self, db: sqlite3.Connection, number: int) -> list[int]:
        """List the msgIds of a mailing, the first thousand of them."""
        query = (
            "SELECT m.id FROM mailing_step s CROSS JOIN message m ON m.id BETWEEN s.first"
            " AND s.last WHERE s.mailing = ? ORDER BY 1 LIMIT ?"
        )
        return [row[0] for row in db.execute(query, (number, MOST_IDS))]

    @writes(grows=False)
    def trim(self, journal: Journal, before: int, most: int) -> int:
        """Forget mailings from before then (ms); their clientIds are free again."""
        query = "SELECT id FROM mailing WHERE created < ? LIMIT ?"
        old = journal.db.execute(query, (before, most)).fetchall()
        journal.db.executemany("DELETE FROM mailing_step WHERE mailing = ?", old)
        journal.db.executemany("DELETE FROM mailing WHERE id = ?", old)
        return len(old)


def _find(db: sqlite3.Connection, client_id: str) -> Mailing | None:
    row: Any = db.execute(MAILING, (client_id,)).fetchone()
    return None if row is None else Mailing(*row)


def _last(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT coalesce(max(id), 0) FROM account").fetchone()[0])


def _step(journal: Journal, mailing: Mailing) -> Mailing:
    """Reach some more accounts and write down how far it has come."""
    if mailing.done:
        return mailing
    first = journal.next_id
    if mailing.chat:
        _to_group(journal, mailing, journal.groups.find(journal.db, mailing.chat))
        mailing.place = mailing.final
    else:
        _to_accounts(journal, mailing)
    if mailing.place >= mailing.final:
        mailing.done = journal.now
        mailing.infos = mailing.text = mailing.paths = mailing.accounts = ""
    journal.db.execute(
        "UPDATE mailing SET infos = ?, text = ?, paths = ?, accounts = ?, place = ?, reached = ?,"
        " devices = ?, skipped = ?, done = ? WHERE id = ?",
        (
            *(mailing.infos, mailing.text, mailing.paths, mailing.accounts, mailing.place),
            *(mailing.reached, mailing.devices, mailing.skipped, mailing.done, mailing.number),
        ),
    )
    if journal.next_id > first:
        step = (mailing.number, first, journal.next_id - 1)
        journal.db.execute("INSERT INTO mailing_step VALUES (?, ?, ?)", step)
    return mailing


def _to_accounts(journal: Journal, mailing: Mailing) -> None:
    rows = 0
    following = _next_accounts(journal.db, mailing)
    for place, account in following:
        mailing.place = place
        box = journal.mailbox(account)
        if box is None or box.disabled:
            mailing.skipped += 1
            continue
        _to_account(journal, mailing, box)
        rows += max(1, len(box.devices))
        if rows >= STEP_ROWS:
            return
    if len(following) < STEP_ROWS:
        # No account is left, whatever the last id was.
        mailing.place = mailing.final


def _next_accounts(db: sqlite3.Connection, mailing: Mailing) -> list[tuple[int, int]]:
    """Give the next accounts with their places."""
    if mailing.accounts:
        listed = msgspec.json.decode(mailing.accounts, type=list[int])
        part = listed[mailing.place : mailing.place + STEP_ROWS]
        return list(enumerate(part, start=mailing.place + 1))
    query = (
        "SELECT id, id FROM account WHERE id > ? AND id <= ? AND phone IS NOT NULL"
        " ORDER BY id LIMIT ?"
    )
    return db.execute(query, (mailing.place, mailing.final, STEP_ROWS)).fetchall()


def _to_account(journal: Journal, mailing: Mailing, box: Mailbox) -> None:
    account = box.account
    chat = journal.chat(system_key(account), "system", (account,))
    body = _body(mailing, SYSTEM_CHAT, str(account))
    number, rest = journal.store_message(chat, 0, body, mailing.text, expire=mailing.expire)
    _refer(journal, mailing, chat, number)
    journal.deliver(box, chat, number, rest)
    mailing.reached += 1
    mailing.devices += len(box.devices)


def _to_group(journal: Journal, mailing: Mailing, group: Group | None) -> None:
    if group is None:
        return
    body = _body(mailing, group.key, group.key)
    number, rest = journal.store_message(group.chat, 0, body, mailing.text, expire=mailing.expire)
    _refer(journal, mailing, group.chat, number)
    journal.fan_out(group, number, rest)
    boxes = (journal.mailbox(account) for account in group.members)
    mailing.devices = sum(len(box.devices) for box in boxes if box is not None)
    mailing.reached = len(group.members)


def _body(mailing: Mailing, chat: str, to: str) -> str:
    extra = f',"expire":{mailing.expire}' if mailing.expire else ""
    head = f'"chatId":"{chat}","fromId":"","toId":"{to}","type":"0","info":'
    return f"{head}{mailing.infos}{extra}"


def _refer(journal: Journal, mailing: Mailing, chat: int, number: int) -> None:
    for path in msgspec.json.decode(mailing.paths, type=list[str]):
        references.refer(journal, path, chat, number)
