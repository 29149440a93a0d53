-- When messages were acked and read, for the operator's `trace`, and what the server sends itself.

-- Marks: by each, an ack or a read mark of a device or member moved from one msgId to another.
-- They are appended; the oldest go. What lies between two marks is known to the later one only.
CREATE TABLE ack_mark (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    device  INTEGER NOT NULL,
    before  INTEGER NOT NULL,                       -- the newest msgId acked until then
    message INTEGER NOT NULL,                       -- the newest one from then on
    at      INTEGER NOT NULL
);
CREATE TABLE read_mark (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    chat    INTEGER NOT NULL,
    account INTEGER NOT NULL,
    before  INTEGER NOT NULL,
    message INTEGER NOT NULL,
    at      INTEGER NOT NULL
);
ALTER TABLE position ADD COLUMN at INTEGER NOT NULL DEFAULT 0;    -- the last ack, 0 before the first
ALTER TABLE member ADD COLUMN read_at INTEGER NOT NULL DEFAULT 0; -- when `read` moved last
ALTER TABLE message ADD COLUMN recalled INTEGER;                  -- when, NULL if it was not

-- What an operator sends to many, step by step, each step with its messages in one commit.
CREATE TABLE mailing (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    client_id TEXT NOT NULL UNIQUE,
    content   BLOB NOT NULL,                        -- SHA-256 of all that makes it what it is
    infos     TEXT NOT NULL,                        -- as JSON; '' once it is done
    text      TEXT NOT NULL,                        -- as search compares it
    paths     TEXT NOT NULL,                        -- the stored files it names, as JSON
    expire    INTEGER NOT NULL,
    chat      TEXT NOT NULL,                        -- the chatId of a group, '' for accounts
    accounts  TEXT NOT NULL,                        -- their ids as JSON, '' for all
    place     INTEGER NOT NULL,                     -- of the last account that was reached
    final     INTEGER NOT NULL,                     -- of the last account of all
    reached   INTEGER NOT NULL DEFAULT 0,           -- accounts
    devices   INTEGER NOT NULL DEFAULT 0,
    skipped   INTEGER NOT NULL DEFAULT 0,           -- accounts that were disabled or gone
    created   INTEGER NOT NULL,
    done      INTEGER NOT NULL DEFAULT 0            -- when, 0 while it goes on
);
-- The msgIds of a step: all messages from the first to the last one.
CREATE TABLE mailing_step (
    mailing INTEGER NOT NULL REFERENCES mailing (id),
    first   INTEGER NOT NULL,
    last    INTEGER NOT NULL,
    PRIMARY KEY (mailing, first)
) WITHOUT ROWID;
