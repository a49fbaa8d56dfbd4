-- audit_topic: the next topic: how many messages its ledger says are left, and how many there are, counted to a limit. Index: message_key, refused_topic.
SELECT t.id, t.enqueued - t.acked - t.dead - t.expired - t.purged - t.cancelled,
       (SELECT count(*) FROM (SELECT FROM message m WHERE m.topic_id = t.id LIMIT %(limit)s) m)
       + (SELECT count(*) FROM (SELECT FROM refused r WHERE r.topic_id = t.id LIMIT %(limit)s) r)
FROM topic t WHERE t.id > %(after)s ORDER BY t.id LIMIT 1
