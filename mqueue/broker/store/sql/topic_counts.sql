-- topic_counts: per topic, rows pending (by the ledger, which moves with them: none is counted) and dead (counting stops at a million), and the
-- ledger. Index: refused_topic, dead_letter_topic.
SELECT t.namespace, t.name,
       t.enqueued - t.acked - t.dead - t.expired - t.purged - t.cancelled - (SELECT count(*) FROM refused r WHERE r.topic_id = t.id),
       (SELECT count(*) FROM (SELECT FROM dead_letter d WHERE d.topic_id = t.id LIMIT 1000000) d),
       t.enqueued, t.acked, t.dead, t.expired, t.purged, t.cancelled
FROM topic t WHERE %(namespaces)s::text[] IS NULL OR t.namespace = ANY(%(namespaces)s) ORDER BY t.namespace, t.name
