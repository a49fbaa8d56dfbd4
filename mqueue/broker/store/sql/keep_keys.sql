-- keep_keys: idempotency keys, with the flush. Index: idempotency_pkey.
INSERT INTO idempotency (key_hash, body_hash, id, expires_at_us)
SELECT * FROM unnest(%(key_hashes)s::bytea[], %(body_hashes)s::bytea[], %(ids)s::bigint[], %(expiries)s::bigint[])
ON CONFLICT (key_hash) DO UPDATE SET body_hash = excluded.body_hash, id = excluded.id, expires_at_us = excluded.expires_at_us
WHERE idempotency.expires_at_us < excluded.expires_at_us
