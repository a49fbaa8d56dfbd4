-- delete_messages: rows whose message ended, up to the version that ended it. Index: message_pkey.
DELETE FROM message m USING unnest(%(ids)s::bigint[], %(versions)s::int[]) AS gone (id, version)
WHERE m.id = gone.id AND m.version <= gone.version RETURNING m.id, m.topic_id
