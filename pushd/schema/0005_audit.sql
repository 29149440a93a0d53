-- What operators did and who logged in, and which reports are done with.

-- `number` rises within a kind (0 actions, 1 logins, 2 failed ones) and bounds its rows.
CREATE TABLE audit (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    kind    INTEGER NOT NULL,
    number  INTEGER NOT NULL,
    time    INTEGER NOT NULL,
    actor   TEXT NOT NULL,                          -- user and process, or an address
    action  TEXT NOT NULL,
    account INTEGER NOT NULL,                       -- whom it is about, 0 nobody
    detail  TEXT NOT NULL,
    outcome TEXT NOT NULL,
    count   INTEGER NOT NULL                        -- how many equal ones it stands for
);
CREATE UNIQUE INDEX audit_number ON audit (kind, number);
CREATE INDEX audit_account ON audit (account);

ALTER TABLE report ADD COLUMN done INTEGER NOT NULL DEFAULT 0;    -- when, 0 while it is open
CREATE INDEX report_done ON report (done) WHERE done <> 0;
