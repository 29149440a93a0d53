"""A store as it is after years: rows written straight into the database of a stopped server.

Through the server ten million messages would take an hour. What is written is what the server
would have left: every message was delivered and acked long ago, and can be found in its chat and
by its clientId.
"""

import hashlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from pushd.store.newest import newest_in

from .load import TEXT
from .people import Person

FIRST_USER = 20_001  # ids of the people made here; those of the server's own making are below
BORN = 1_700_000_000_000  # when all of it was written, ms


def add_pairs(data: Path, pairs: int) -> list[tuple[Person, Person]]:
    """Add pairs of friends with a device each, and give them."""
    people = [
        Person(f"139{number:08d}", str(FIRST_USER + number), f"bench-{number}")
        for number in range(2 * pairs)
    ]
    with closing(_open(data)) as db:
        device = db.execute("SELECT coalesce(max(id), 0) FROM device").fetchone()[0] + 1
        chat = db.execute("SELECT coalesce(max(id), 0) FROM chat").fetchone()[0] + 1
        db.execute("BEGIN")
        for number, person in enumerate(people):
            user = int(person.user_id)
            db.execute(
                "INSERT INTO account (id, phone, password, created, modified)"
                " VALUES (?, ?, x'2a', ?, ?)",
                (user, person.phone, BORN, BORN),
            )
            token = hashlib.sha256(person.push_id.encode()).digest()
            for row, known in ((device, None), (device + 1, token)):
                db.execute(
                    "INSERT INTO device (id, account, token, created, last_seen, since)"
                    " VALUES (?, ?, ?, ?, unixepoch() * 1000, 0)",
                    (row, user, known, BORN),
                )
                db.execute("INSERT INTO position (device) VALUES (?)", (row,))
            device += 2
            friend = user + 1 if number % 2 == 0 else user - 1
            db.execute(
                "INSERT INTO friendship (account, friend, created) VALUES (?, ?, ?)",
                (user, friend, BORN),
            )
            if number % 2 == 0:
                key = f"{user}-{friend}"
                db.execute("INSERT INTO chat (id, key, kind) VALUES (?, ?, 'pair')", (chat, key))
                db.executemany(
                    "INSERT INTO member (chat, account) VALUES (?, ?)",
                    ((chat, user), (chat, friend)),
                )
                chat += 1
        db.execute("COMMIT")
    return list(zip(people[::2], people[1::2], strict=True))


def add_messages(data: Path, count: int) -> None:
    """Add messages that were exchanged by all pairs in turn."""
    if not count:
        return
    with closing(_open(data)) as db:
        db.execute("PRAGMA cache_size=-1000000")
        first = newest_in(db)
        low, pairs = db.execute("SELECT min(id), count(*) FROM chat WHERE kind = 'pair'").fetchone()
        key = "(SELECT key FROM chat WHERE id = c)"
        sender = f"CAST(substr({key}, 1, instr({key}, '-') - 1) AS INTEGER)"
        body = (
            f'\'"chatId":"\' || {key} || \'","fromId":"\' || {sender} || \'","toId":"\' ||'
            f' substr({key}, instr({key}, \'-\') + 1) || \'","type":"1","info":[{{"category":'
            f'"0","content":"{TEXT}"}}]\''
        )
        db.execute("BEGIN")
        db.execute(
            "INSERT INTO message (id, chat, sender, created, body, text, client_id, client_key)"
            " WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2),"
            " m (i, c) AS (SELECT i, ?3 + i % ?4 FROM n)"
            # A millisecond apart up to now: older clientIds than 7 days the server would free.
            f" SELECT ?1 + i, c, {sender}, unixepoch() * 1000 - ?2 + i, {body}, ?5, 'aged-' || i,"
            " random() FROM m",
            (first, count, low, pairs, TEXT),
        )
        new = "FROM message WHERE id > ?"
        db.execute(
            f"INSERT INTO chat_message SELECT chat, id {new} ORDER BY chat, id",
            (first,),
        )
        db.execute(
            f"INSERT INTO client_key SELECT client_key, id {new} ORDER BY client_key, id",
            (first,),
        )
        mark = (
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
        )
        for name in ("client_keys", "msg_id"):
            db.execute(mark, (name, str(first + count)))
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    # Or the disk would still write it while the server is measured.
    os.sync()


def _open(data: Path) -> sqlite3.Connection:
    db = sqlite3.connect(data / "pushd.db", isolation_level=None)
    # Nothing here must survive anything.
    db.execute("PRAGMA synchronous=OFF")
    db.execute("PRAGMA temp_store=FILE")
    return db
