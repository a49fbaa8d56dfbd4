-- versions: tells which of these messages PostgreSQL has, and in which version. Index: message_pkey.
SELECT id, version, topic_id FROM message WHERE id = ANY(%(ids)s)
