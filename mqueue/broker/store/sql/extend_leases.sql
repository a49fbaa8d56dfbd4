-- extend_leases: renews those whose receipt is current (null: any). Index: lease_pkey, message_pkey.
-- moves: nothing
UPDATE lease l SET until_us = %(now)s + coalesce(nullif(s.lease_ms, 0), m.lease_ms)::bigint * 1000
FROM unnest(%(ids)s::bigint[], %(topics)s::text[], %(epochs)s::bigint[], %(numbers)s::bigint[], %(leases)s::int[]) AS s (id, topic, epoch, number, lease_ms)
JOIN message m ON m.id = s.id JOIN topic t ON t.id = m.topic_id AND t.namespace || '/' || t.name = s.topic
WHERE l.id = s.id AND (s.number IS NULL OR (l.epoch, l.number) = (s.epoch, s.number)) RETURNING l.id
