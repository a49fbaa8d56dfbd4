-- set_aside: keeps a row that was refused, in place of an earlier version of it; says whether it had none. Index: message_pkey, refused_pkey.
-- moves: nothing
WITH gone AS (DELETE FROM message WHERE id = %(id)s RETURNING id),
kept AS (
  INSERT INTO refused (id, topic_id, version, state, body, error, reason)
  VALUES (%(id)s, %(topic_id)s, %(version)s, %(state)s, %(body)s, %(error)s, %(reason)s)
  ON CONFLICT (id) DO UPDATE SET version = excluded.version, state = excluded.state, body = excluded.body,
                                 error = coalesce(excluded.error, refused.error), reason = excluded.reason
  RETURNING xmax = 0 AS is_new)
SELECT is_new AND NOT EXISTS (SELECT FROM gone) FROM kept
