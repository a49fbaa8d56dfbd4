-- arrivals: rows that came another way, by id, above `after`; one that is gone again comes with nulls. Index: arrival_pkey, message_pkey.
SELECT a.id, t.namespace || '/' || t.name, m.priority, m.rank, m.deliver_after_us, m.attempts, m.max_retries, m.version, m.lease_ms, m.origin_node,
       m.origin_sequence, m.expires_at_us, m.created_at_us, m.payload, m.metadata::text, m.idempotency_key, m.unique_key
FROM (SELECT id FROM arrival WHERE id > %(after)s ORDER BY id LIMIT %(limit)s) a LEFT JOIN message m ON m.id = a.id LEFT JOIN topic t ON t.id = m.topic_id ORDER BY a.id
