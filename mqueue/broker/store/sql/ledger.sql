-- ledger: per topic its counters and rows, of one moment: enqueued = acked + dead + expired + purged + cancelled + rows + refused. Index: message_key, refused_topic.
SELECT t.namespace, t.name, t.enqueued, t.acked, t.dead, t.expired, t.purged, t.cancelled, (SELECT count(*) FROM message m WHERE m.topic_id = t.id),
       (SELECT count(*) FROM refused r WHERE r.topic_id = t.id)
FROM topic t ORDER BY t.namespace, t.name
