-- claim_keys: idempotency keys of new messages; returns those that were free. In one order, so that two brokers cannot lock each other out.
-- Index: idempotency_pkey.
INSERT INTO idempotency AS i (key_hash, body_hash, id, expires_at_us, ids)
SELECT * FROM unnest(%(key_hashes)s::bytea[], %(body_hashes)s::bytea[], %(ids)s::bigint[], %(expiries)s::bigint[], %(runs)s::bytea[]) ORDER BY 1
ON CONFLICT (key_hash) DO UPDATE SET body_hash = excluded.body_hash, id = excluded.id, expires_at_us = excluded.expires_at_us, ids = excluded.ids
WHERE i.expires_at_us <= %(now)s RETURNING i.key_hash
