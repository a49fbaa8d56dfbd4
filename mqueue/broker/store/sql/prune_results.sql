-- prune_results: results whose time is over. Index: result_expiry, result_pkey.
DELETE FROM result WHERE (id, namespace, topic) IN (
  SELECT id, namespace, topic FROM result WHERE expires_at <= now() ORDER BY expires_at LIMIT %(limit)s)
RETURNING 1
