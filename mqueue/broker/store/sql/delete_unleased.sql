-- delete_unleased: deletes those, of messages that are held, that nobody has, up to a version. Index: message_pkey, lease_pkey.
-- moves: UNPLACED -ttl-> EXPIRED
DELETE FROM message m USING unnest(%(ids)s::bigint[], %(versions)s::int[]) AS gone (id, version)
WHERE m.id = gone.id AND m.version <= gone.version AND NOT EXISTS (SELECT FROM lease l WHERE l.id = m.id) RETURNING m.id, m.topic_id
