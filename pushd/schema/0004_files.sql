-- Stored files by their content, who owns them, which messages refer to them, unfinished uploads.

CREATE TABLE file (
    id       INTEGER PRIMARY KEY,
    path     TEXT NOT NULL UNIQUE,                  -- the server's: media/ab/abcd….jpg
    size     INTEGER NOT NULL,
    md5      TEXT NOT NULL,
    mime     TEXT NOT NULL,                         -- read from the content
    saved    INTEGER NOT NULL,                      -- when somebody saved it last
    original INTEGER REFERENCES file (id)           -- of a thumbnail: what it is made of
);
CREATE INDEX file_original ON file (original) WHERE original IS NOT NULL;

CREATE TABLE file_owner (
    account INTEGER NOT NULL REFERENCES account (id),
    file    INTEGER NOT NULL REFERENCES file (id),
    size    INTEGER NOT NULL,                       -- the file's, for the quota
    name    TEXT NOT NULL,                          -- a label of the owner's, never a path
    created INTEGER NOT NULL,
    PRIMARY KEY (account, file)
) WITHOUT ROWID;
CREATE INDEX file_owner_file ON file_owner (file);

-- Who may read the message may read the file. A row may outlive its message.
CREATE TABLE file_ref (
    file    INTEGER NOT NULL REFERENCES file (id),
    chat    INTEGER NOT NULL,
    message INTEGER NOT NULL,
    PRIMARY KEY (file, chat, message)
) WITHOUT ROWID;

-- An upload in parts. It stays for a while when it is finished, to answer a repeated last part.
CREATE TABLE upload (
    id      TEXT PRIMARY KEY,
    account INTEGER NOT NULL REFERENCES account (id),
    size    INTEGER NOT NULL,                       -- bytes that are synced
    start   INTEGER NOT NULL,                       -- where the last part begins
    digest  BLOB NOT NULL,                          -- SHA-256 of the last part
    changed INTEGER NOT NULL,                       -- when the last part came
    file    INTEGER REFERENCES file (id)            -- what became of it; NULL while unfinished
) WITHOUT ROWID;
CREATE INDEX upload_account ON upload (account);
CREATE INDEX upload_changed ON upload (changed);
CREATE INDEX upload_file ON upload (file) WHERE file IS NOT NULL;

CREATE INDEX account_avatar ON account (avatar) WHERE avatar <> '';
CREATE INDEX groups_avatar ON groups (avatar) WHERE avatar <> '';
