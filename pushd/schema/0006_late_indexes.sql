-- The two large indexes over messages, each in a young and an old part (see store/indexes.py).

-- Which messages a chat has; what of a chat is in chat_recent is newer than all of it in
-- chat_message.
CREATE TABLE chat_message (
    chat    INTEGER NOT NULL,
    message INTEGER NOT NULL,
    PRIMARY KEY (chat, message)
) WITHOUT ROWID;
CREATE TABLE chat_recent (
    chat    INTEGER NOT NULL,
    message INTEGER NOT NULL,
    PRIMARY KEY (chat, message)
) WITHOUT ROWID;

-- By which key of a clientId a message is found; the newest ones are found in message itself,
-- behind the msgId that meta names as 'client_keys'.
CREATE TABLE client_key (
    key     INTEGER NOT NULL,
    message INTEGER NOT NULL,
    PRIMARY KEY (key, message)
) WITHOUT ROWID;

INSERT INTO chat_message SELECT chat, id FROM message ORDER BY chat, id;
INSERT INTO client_key
    SELECT client_key, id FROM message WHERE client_key IS NOT NULL ORDER BY client_key, id;
INSERT INTO meta SELECT 'client_keys', coalesce(max(id), 0) FROM message;

DROP INDEX message_chat;
DROP INDEX message_client;
