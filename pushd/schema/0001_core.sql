-- The store of pushd, version 1. Times are milliseconds since 1970. Ids rise and are never used
-- again, also when what had them is gone.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE account (
    id            INTEGER PRIMARY KEY,
    phone         TEXT UNIQUE,                      -- NULL once the account was deleted
    password      BLOB NOT NULL,                    -- a bcrypt hash
    username      TEXT NOT NULL DEFAULT '',
    name_key      TEXT UNIQUE,                      -- the username as uniqueness compares it
    folded        TEXT NOT NULL DEFAULT '',         -- the username as search compares it
    avatar        TEXT NOT NULL DEFAULT '',
    desc          TEXT NOT NULL DEFAULT '',
    sex           INTEGER NOT NULL DEFAULT 0,
    created       INTEGER NOT NULL,
    modified      INTEGER NOT NULL,
    last_seen     INTEGER NOT NULL DEFAULT 0,
    generation    INTEGER NOT NULL DEFAULT 0,       -- raised to revoke every login without a device
    disabled      INTEGER NOT NULL DEFAULT 0,
    find_by_phone INTEGER NOT NULL DEFAULT 1,
    show_presence INTEGER NOT NULL DEFAULT 1,
    read_receipts INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX account_folded ON account (folded) WHERE folded <> '';

-- A device, and its queue. Each account has one row without a token: the line in which messages
-- wait while the account has no device.
CREATE TABLE device (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    account   INTEGER NOT NULL REFERENCES account (id),
    token     BLOB UNIQUE,                          -- SHA-256 of the pushId
    name      TEXT NOT NULL DEFAULT '',
    created   INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    since     INTEGER NOT NULL                      -- the newest msgId when it was created
);
CREATE INDEX device_account ON device (account);

-- Where a device's queue stands. `last` is the highest seq ever given out and survives all.
CREATE TABLE position (
    device  INTEGER PRIMARY KEY REFERENCES device (id) ON DELETE CASCADE,
    last    INTEGER NOT NULL DEFAULT 0,
    acked   INTEGER NOT NULL DEFAULT 0,             -- all up to this seq are acked
    message INTEGER NOT NULL DEFAULT 0              -- the newest msgId that was acked
);

CREATE TABLE queue (
    device  INTEGER NOT NULL,
    seq     INTEGER NOT NULL,
    message INTEGER NOT NULL,                       -- a msgId, also of a gap
    PRIMARY KEY (device, seq)
) WITHOUT ROWID;

-- A gap stands in a queue for what the queue does not hold. It collects while it is open.
CREATE TABLE gap (
    device   INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    seq_from INTEGER NOT NULL,
    message  INTEGER NOT NULL,                      -- its own msgId
    created  INTEGER NOT NULL,
    open     INTEGER NOT NULL,
    PRIMARY KEY (device, seq)
) WITHOUT ROWID;

CREATE TABLE gap_chat (
    device INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    chat   INTEGER NOT NULL,
    after  INTEGER NOT NULL,                        -- what is missing follows this msgId
    PRIMARY KEY (device, seq, chat)
) WITHOUT ROWID;

CREATE TABLE chat (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    key  TEXT NOT NULL UNIQUE,                      -- '10001-10002', or 'system/10001'
    kind TEXT NOT NULL                              -- pair, system
);

CREATE TABLE member (
    chat    INTEGER NOT NULL REFERENCES chat (id),
    account INTEGER NOT NULL REFERENCES account (id),
    read    INTEGER NOT NULL DEFAULT 0,             -- the newest msgId that was read
    PRIMARY KEY (chat, account)
) WITHOUT ROWID;
CREATE INDEX member_account ON member (account, chat);

CREATE TABLE message (
    id        INTEGER PRIMARY KEY,
    chat      INTEGER NOT NULL,
    sender    INTEGER NOT NULL,                     -- 0 is the server
    created   INTEGER NOT NULL,
    body      TEXT NOT NULL,                        -- JSON members without braces
    text      TEXT,                                 -- as search compares it; NULL once recalled
    client_id TEXT,
    client_key INTEGER,                             -- finds sender and client_id; NULL once free
    expires   INTEGER,
    original  BLOB                                  -- SHA-256 of the body that was recalled
);
CREATE INDEX message_chat ON message (chat);
-- Random keys land all over an index, so it holds eight bytes for each and not the clientId.
CREATE INDEX message_client ON message (client_key) WHERE client_key IS NOT NULL;
CREATE INDEX message_expires ON message (expires) WHERE expires IS NOT NULL;

CREATE TABLE friendship (
    account INTEGER NOT NULL REFERENCES account (id),
    friend  INTEGER NOT NULL REFERENCES account (id),
    alias   TEXT NOT NULL DEFAULT '',
    folded  TEXT NOT NULL DEFAULT '',               -- the alias as search compares it
    created INTEGER NOT NULL,
    PRIMARY KEY (account, friend)
) WITHOUT ROWID;

CREATE TABLE friend_request (
    account     INTEGER NOT NULL REFERENCES account (id),   -- the one asked
    asker       INTEGER NOT NULL REFERENCES account (id),
    description TEXT NOT NULL,
    created     INTEGER NOT NULL,
    PRIMARY KEY (account, asker)
) WITHOUT ROWID;

CREATE TABLE block (
    account INTEGER NOT NULL REFERENCES account (id),
    blocked INTEGER NOT NULL REFERENCES account (id),
    created INTEGER NOT NULL,
    PRIMARY KEY (account, blocked)
) WITHOUT ROWID;

-- Addresses from which a login succeeded, so that a guesser elsewhere cannot lock its owner out.
CREATE TABLE login_address (
    account INTEGER NOT NULL REFERENCES account (id),
    address TEXT NOT NULL,
    seen    INTEGER NOT NULL,
    PRIMARY KEY (account, address)
) WITHOUT ROWID;
