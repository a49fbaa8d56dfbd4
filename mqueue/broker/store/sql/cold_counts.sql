-- cold_counts: per topic, rows leased and rows not yet due (counting stops at a million). Index: lease_pkey, message_pkey, message_key.
SELECT t.namespace || '/' || t.name,
       (SELECT count(*) FROM lease l JOIN message m ON m.id = l.id WHERE m.topic_id = t.id),
       (SELECT count(*) FROM (SELECT FROM message m WHERE m.topic_id = t.id AND m.deliver_after_us > greatest(s.clock_us, tick.clock_us)
                              AND NOT EXISTS (SELECT FROM lease l WHERE l.id = m.id) LIMIT 1000000) m)
FROM topic t, shard s, tick WHERE %(namespaces)s::text[] IS NULL OR t.namespace = ANY(%(namespaces)s)
