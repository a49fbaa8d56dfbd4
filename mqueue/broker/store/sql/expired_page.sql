-- expired_page: rows past their TTL, from (expiry, id) on; the pruner leaves alone what Redis knows. Index: message_expiry.
SELECT id, version, expires_at_us FROM message
WHERE expires_at_us <= %(now)s AND expires_at_us >= %(expires)s AND (expires_at_us, id) > (%(expires)s, %(id)s)
ORDER BY expires_at_us, id LIMIT %(limit)s
