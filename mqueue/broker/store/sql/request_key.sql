-- request_key: tells which ids the key of a whole request stands for. Index: idempotency_pkey.
SELECT body_hash, ids FROM idempotency WHERE key_hash = %(key_hash)s AND ids IS NOT NULL AND expires_at_us > %(now)s
