-- unique_rows: how far the shard is flushed, and which messages it has under these unique keys then, the newest of each key; or nulls.
-- Index: message_unique.
SELECT s.epoch, s.dirty_number, m.unique_key, m.id, coalesce(m.expires_at_us, 0)
FROM shard s LEFT JOIN (unnest(%(unique_keys)s::bytea[]) AS k (unique_key) CROSS JOIN LATERAL (
  SELECT id, unique_key, expires_at_us FROM message WHERE unique_key = k.unique_key ORDER BY id DESC LIMIT %(limit)s) m) ON true
