-- existing: which of these messages PostgreSQL has, alive or dead. Index: message_pkey, dead_letter_pkey.
SELECT m.id, t.namespace || '/' || t.name FROM message m JOIN topic t ON t.id = m.topic_id WHERE m.id = ANY(%(ids)s)
UNION ALL
SELECT d.id, t.namespace || '/' || t.name FROM dead_letter d JOIN topic t ON t.id = d.topic_id WHERE d.id = ANY(%(ids)s)
