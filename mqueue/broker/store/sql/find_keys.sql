-- find_keys: idempotency keys Redis does not know. Index: idempotency_pkey.
SELECT key_hash, body_hash, id, expires_at_us FROM idempotency WHERE key_hash = ANY(%(key_hashes)s) AND expires_at_us > %(now)s
