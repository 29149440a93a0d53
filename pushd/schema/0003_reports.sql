-- What people report to the operator.
CREATE TABLE report (
    id      INTEGER PRIMARY KEY,
    account INTEGER NOT NULL REFERENCES account (id),   -- who reports
    user    INTEGER NOT NULL,                           -- whom
    message INTEGER NOT NULL DEFAULT 0,                 -- which message, 0 for none
    reason  TEXT NOT NULL,
    created INTEGER NOT NULL
);
CREATE INDEX report_account ON report (account);
