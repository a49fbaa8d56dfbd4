-- prune_cancel_requests: of messages that PostgreSQL does not have, once their workers have had the time to ask. Index: message_pkey.
DELETE FROM cancel_request WHERE id IN (
  SELECT c.id FROM cancel_request c
  WHERE c.requested_at < now() - make_interval(secs => %(age_s)s) AND NOT EXISTS (SELECT FROM message m WHERE m.id = c.id) LIMIT %(limit)s)
RETURNING 1
