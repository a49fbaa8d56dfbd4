-- versions: what PostgreSQL has of these messages. Index: message_pkey.
SELECT id, version, topic_id FROM message WHERE id = ANY(%(ids)s)
