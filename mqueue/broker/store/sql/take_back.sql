-- take_back: rows that were set aside, and of which this version or a later one is written now. Index: refused_pkey.
DELETE FROM refused r USING unnest(%(ids)s::bigint[], %(versions)s::int[]) AS s (id, version) WHERE r.id = s.id AND r.version <= s.version
RETURNING r.id, r.topic_id
