-- message_by_id: one message, alive or dead; whether PostgreSQL knows a lease of it; what is due on the cold path. Index: message_pkey, dead_letter_pkey.
SELECT t.namespace, t.name, false AS dead, EXISTS (SELECT FROM lease l WHERE l.id = m.id) AS leased, m.priority, m.attempts, m.max_retries, m.payload,
       m.metadata::text, m.deliver_after_us, m.created_at_us, m.error, EXISTS (SELECT FROM cancel_request c WHERE c.id = m.id),
       greatest(shard.clock_us, tick.clock_us, (SELECT last_value FROM cold_clock))
FROM message m JOIN topic t ON t.id = m.topic_id, shard, tick WHERE m.id = %(id)s
UNION ALL
SELECT t.namespace, t.name, true, false, d.priority, d.attempts, d.max_retries, d.payload, d.metadata::text, d.deliver_after_us, d.created_at_us, d.error, false, 0
FROM dead_letter d JOIN topic t ON t.id = d.topic_id WHERE d.id = %(id)s
