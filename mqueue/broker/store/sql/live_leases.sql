-- live_leases: leases that still run, with their messages, by id: a new epoch begins with them. Index: lease_pkey, message_pkey.
SELECT m.id, t.namespace || '/' || t.name, m.priority, m.rank, m.deliver_after_us, m.attempts, m.max_retries, m.version, m.lease_ms, m.origin_node,
       m.origin_sequence, m.expires_at_us, m.created_at_us, m.payload, m.metadata::text, m.idempotency_key, m.unique_key, l.epoch, l.number, l.until_us,
       EXISTS (SELECT FROM cancel_request c WHERE c.id = m.id)
FROM lease l JOIN message m ON m.id = l.id JOIN topic t ON t.id = m.topic_id
WHERE l.id > %(after)s AND l.until_us > %(now)s ORDER BY l.id LIMIT %(limit)s
