-- delete_messages: rows whose message ended, up to the version that ended it. Index: message_pkey.
-- moves: LEASED -ack-> ACKED, LEASED -cancel-> CANCELLED, UNPLACED -cancel-> CANCELLED, UNPLACED -ttl-> EXPIRED
-- moves: LEASED -nack-> CANCELLED, LEASED -release-> CANCELLED, LEASED -bury-> CANCELLED, LEASED -lease_expiry-> CANCELLED
DELETE FROM message m USING unnest(%(ids)s::bigint[], %(versions)s::int[]) AS gone (id, version)
WHERE m.id = gone.id AND m.version <= gone.version RETURNING m.id, m.topic_id
