-- prune_keys: idempotency keys whose time is over. Index: idempotency_expiry.
DELETE FROM idempotency WHERE key_hash IN (SELECT key_hash FROM idempotency WHERE expires_at_us <= %(now)s ORDER BY expires_at_us LIMIT %(limit)s)
RETURNING 1
