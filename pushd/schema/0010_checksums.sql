-- What tells whether a message is still what was written: a CRC-32 of id, chat, time and body. NULL in
-- rows of earlier versions.
ALTER TABLE message ADD COLUMN checksum INTEGER;
