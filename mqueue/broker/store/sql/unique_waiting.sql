-- unique_waiting: tells, past Redis, which message waits under each of these unique keys. Index: message_unique, lease_pkey.
SELECT m.unique_key, min(m.id) FROM message m
WHERE m.unique_key = ANY(%(unique_keys)s) AND (m.expires_at_us IS NULL OR m.expires_at_us > %(now)s) AND NOT EXISTS (SELECT FROM lease l WHERE l.id = m.id)
GROUP BY m.unique_key
