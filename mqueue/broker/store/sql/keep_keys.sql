-- keep_keys: idempotency keys, with the flush or a replay; `runs`: all ids of a request that had one key. Index: idempotency_pkey.
INSERT INTO idempotency (key_hash, body_hash, id, expires_at_us, ids)
SELECT * FROM unnest(%(key_hashes)s::bytea[], %(body_hashes)s::bytea[], %(ids)s::bigint[], %(expiries)s::bigint[], %(runs)s::bytea[])
ON CONFLICT (key_hash) DO UPDATE SET body_hash = excluded.body_hash, id = excluded.id, expires_at_us = excluded.expires_at_us, ids = excluded.ids
WHERE idempotency.expires_at_us < excluded.expires_at_us
