-- Groups of three kinds (chat.kind: group, tag, link) and who was in them when.

CREATE TABLE groups (
    chat      INTEGER PRIMARY KEY REFERENCES chat (id),
    name      TEXT NOT NULL,
    folded    TEXT NOT NULL,                        -- the name as search compares it
    desc      TEXT NOT NULL DEFAULT '',
    avatar    TEXT NOT NULL DEFAULT '',
    notice    TEXT NOT NULL DEFAULT '',
    code      TEXT UNIQUE,                          -- joins a link
    mute_all  INTEGER NOT NULL DEFAULT 0,
    created   INTEGER NOT NULL,
    modified  INTEGER NOT NULL,
    dissolved INTEGER NOT NULL DEFAULT 0
);

-- In a pair all of these stay as they are. A row stays when somebody leaves: it bounds what they
-- may read to the messages between `first` and `final`.
ALTER TABLE member ADD COLUMN role TEXT NOT NULL DEFAULT '';          -- owner, admin, member
ALTER TABLE member ADD COLUMN joined INTEGER NOT NULL DEFAULT 0;
ALTER TABLE member ADD COLUMN first INTEGER NOT NULL DEFAULT 0;       -- what is read follows this msgId
ALTER TABLE member ADD COLUMN final INTEGER;                          -- the last msgId, NULL while in
ALTER TABLE member ADD COLUMN muted_until INTEGER NOT NULL DEFAULT 0;

CREATE TABLE join_request (
    chat        INTEGER NOT NULL REFERENCES chat (id),
    account     INTEGER NOT NULL REFERENCES account (id),
    description TEXT NOT NULL,
    created     INTEGER NOT NULL,
    PRIMARY KEY (chat, account)
) WITHOUT ROWID;
