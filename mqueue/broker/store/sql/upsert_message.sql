-- upsert_message: writes staged rows: the greater version stays, nothing is added up; says which rows are new. Index: message_pkey.
-- moves: nothing
WITH written AS (
  INSERT INTO message AS m SELECT * FROM staging ORDER BY id
  ON CONFLICT (id) DO UPDATE SET
    deliver_after_us = excluded.deliver_after_us, attempts = excluded.attempts, version = excluded.version,
    error = coalesce(excluded.error, m.error)
  WHERE m.version < excluded.version
  RETURNING topic_id, (xmax = 0) AS is_new)
SELECT topic_id, count(*) FROM written WHERE is_new GROUP BY topic_id
