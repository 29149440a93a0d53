-- Queues in a young and an old part, as the index by chat (see store/indexes.py): a message to a
-- large group touches few pages and not one of each member's.
ALTER TABLE queue RENAME TO queue_old;
CREATE TABLE queue_recent (
    device  INTEGER NOT NULL,
    seq     INTEGER NOT NULL,
    message INTEGER NOT NULL,                       -- a msgId, also of a gap
    PRIMARY KEY (device, seq)
) WITHOUT ROWID;

-- What is read; of one device all of queue_old comes before all of queue_recent.
CREATE VIEW queue AS
    SELECT device, seq, message FROM queue_recent
    UNION ALL SELECT device, seq, message FROM queue_old;
-- For single rows; where many are written or removed at once, the parts are named.
CREATE TRIGGER queue_insert INSTEAD OF INSERT ON queue BEGIN
    INSERT INTO queue_recent VALUES (new.device, new.seq, new.message);
END;
CREATE TRIGGER queue_delete INSTEAD OF DELETE ON queue BEGIN
    DELETE FROM queue_recent WHERE device = old.device AND seq = old.seq;
    DELETE FROM queue_old WHERE device = old.device AND seq = old.seq;
END;
