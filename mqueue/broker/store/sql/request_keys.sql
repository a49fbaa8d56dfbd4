-- request_keys: keys of whole requests that still hold, those that hold longest first. Index: idempotency_request.
SELECT key_hash, body_hash, id, expires_at_us, ids FROM idempotency WHERE ids IS NOT NULL AND expires_at_us > %(now)s
ORDER BY expires_at_us DESC LIMIT %(limit)s
