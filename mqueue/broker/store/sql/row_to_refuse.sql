-- row_to_refuse: a row of which PostgreSQL refuses the next version, to be set aside. Index: message_pkey.
SELECT m.id, t.namespace || '/' || t.name, m.priority, m.rank, m.deliver_after_us, m.attempts, m.max_retries, m.version, m.lease_ms, m.origin_node,
       m.origin_sequence, m.expires_at_us, m.created_at_us, m.payload, m.metadata::text, m.idempotency_key, m.unique_key
FROM message m JOIN topic t ON t.id = m.topic_id WHERE m.id = %(id)s
