-- cancel_requested: what ran, was to be cancelled and runs no more: its lease ended with its epoch. Index: message_pkey, lease_pkey.
-- moves: UNPLACED -cancel-> CANCELLED
DELETE FROM message m
WHERE m.id = ANY(ARRAY(SELECT id FROM cancel_request)) AND NOT EXISTS (SELECT FROM lease l WHERE l.id = m.id AND l.until_us > %(now)s)
RETURNING m.topic_id
