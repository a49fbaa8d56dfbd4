-- unique="waiting": a hash of topic and key. It is the message's own, and goes with it.

ALTER TABLE message ADD COLUMN unique_key bytea;
CREATE INDEX message_unique ON message (unique_key, id) WHERE unique_key IS NOT NULL;
