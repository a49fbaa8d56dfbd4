-- bury: staged rows become dead letters; returns per topic how many died, and how many of them never had a row. Index: message_pkey, dead_letter_pkey.
-- moves: nothing
WITH gone AS (
  DELETE FROM message m USING staging s WHERE m.id = s.id RETURNING m.id, m.error),
buried AS (
  INSERT INTO dead_letter (id, topic_id, priority, rank, deliver_after_us, attempts, max_retries, version, lease_ms, origin_node, origin_sequence,
                           expires_at_us, error, created_at_us, payload, metadata, idempotency_key, died_at_us)
  SELECT s.id, s.topic_id, s.priority, s.rank, s.deliver_after_us, s.attempts, s.max_retries, s.version, s.lease_ms, s.origin_node, s.origin_sequence,
         s.expires_at_us, coalesce(s.error, g.error), s.created_at_us, s.payload, s.metadata, s.idempotency_key, %(died_at)s
  FROM staging s LEFT JOIN gone g USING (id)
  ON CONFLICT (id) DO NOTHING
  RETURNING id, topic_id)
SELECT b.topic_id, count(*), count(*) FILTER (WHERE g.id IS NULL) FROM buried b LEFT JOIN gone g USING (id) GROUP BY b.topic_id
