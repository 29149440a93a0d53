-- Whether a device has shown that its client knows the pushId, by a restart or by a frame with it.
-- An ack shows it as well, by its position. Devices from before this step count as known.
ALTER TABLE device ADD COLUMN proven INTEGER NOT NULL DEFAULT 1;
