-- dead_leases: messages whose lease has run out, held; what another transaction holds comes next time. Index: lease_until, message_pkey.
SELECT m.id FROM (SELECT id FROM lease WHERE until_us <= %(now)s ORDER BY until_us LIMIT %(limit)s) l JOIN message m ON m.id = l.id
ORDER BY m.id FOR UPDATE OF m SKIP LOCKED
