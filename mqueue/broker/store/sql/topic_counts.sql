-- topic_counts: per topic, rows pending and dead (counting stops at a million), and the ledger. Index: message_key, dead_letter_topic.
SELECT t.namespace, t.name,
       (SELECT count(*) FROM (SELECT FROM message m WHERE m.topic_id = t.id LIMIT 1000000) m),
       (SELECT count(*) FROM (SELECT FROM dead_letter d WHERE d.topic_id = t.id LIMIT 1000000) d),
       t.enqueued, t.acked, t.dead, t.expired, t.purged, t.cancelled
FROM topic t WHERE %(namespaces)s::text[] IS NULL OR t.namespace = ANY(%(namespaces)s) ORDER BY t.namespace, t.name
