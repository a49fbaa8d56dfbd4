-- take_back: rows that were set aside, and of which a later version is written now. Index: refused_pkey.
DELETE FROM refused WHERE id = ANY(%(ids)s::bigint[]) RETURNING id, topic_id
