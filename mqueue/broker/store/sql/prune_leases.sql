-- prune_leases: leases of messages that are gone. Index: lease_until, message_pkey.
-- moves: nothing
DELETE FROM lease WHERE id IN (
  SELECT l.id FROM (SELECT id FROM lease WHERE until_us <= %(now)s ORDER BY until_us LIMIT %(limit)s) l
  WHERE NOT EXISTS (SELECT FROM message m WHERE m.id = l.id))
