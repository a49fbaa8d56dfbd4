-- bury_rows: rows whose delivery was their last become dead letters, past Redis or in a replay. Index: message_pkey.
-- moves: LEASED -nack-> DEAD, LEASED -bury-> DEAD, LEASED -lease_expiry-> DEAD
WITH gone AS (
  DELETE FROM message m USING unnest(%(ids)s::bigint[], %(versions)s::int[], %(attempts)s::int[], %(errors)s::text[]) AS s (id, version, attempts, error)
  WHERE m.id = s.id AND m.version < s.version
  RETURNING m.id, m.topic_id, m.priority, m.rank, m.deliver_after_us, s.attempts, m.max_retries, s.version, m.lease_ms, m.origin_node, m.origin_sequence,
            m.expires_at_us, coalesce(nullif(s.error, ''), m.error) AS error, m.created_at_us, m.payload, m.metadata, m.idempotency_key)
INSERT INTO dead_letter (id, topic_id, priority, rank, deliver_after_us, attempts, max_retries, version, lease_ms, origin_node, origin_sequence,
                         expires_at_us, error, created_at_us, payload, metadata, idempotency_key, died_at_us)
SELECT *, %(died_at)s FROM gone ON CONFLICT (id) DO NOTHING RETURNING topic_id
