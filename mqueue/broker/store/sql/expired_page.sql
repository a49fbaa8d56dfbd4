-- expired_page: rows past their TTL; the pruner leaves alone what Redis knows. Index: message_expiry.
SELECT id, version FROM message WHERE expires_at_us <= %(now)s ORDER BY expires_at_us LIMIT %(limit)s
