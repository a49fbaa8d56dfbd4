-- keep_results: results of acked messages; that of a later delivery replaces an earlier one's. Index: result_pkey.
INSERT INTO result (id, namespace, topic, receipt, value, expires_at)
SELECT id, namespace, topic, receipt, value, now() + make_interval(secs => ttl)
FROM unnest(%(ids)s::bigint[], %(namespaces)s::text[], %(topics)s::text[], %(receipts)s::bytea[], %(values)s::bytea[], %(ttls)s::float8[])
  AS kept (id, namespace, topic, receipt, value, ttl)
ON CONFLICT (id, namespace, topic) DO UPDATE
SET receipt = excluded.receipt, value = excluded.value, stored_at = excluded.stored_at, expires_at = excluded.expires_at
WHERE result.receipt < excluded.receipt
