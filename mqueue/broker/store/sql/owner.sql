-- owner: whose a node number is, and the ms (since 1970) that its wall clock told when it was last heard of, or tells by now at most. No row where it is
-- nobody's. Index: broker_pkey.
SELECT identity, host, (extract(epoch FROM now()) * 1000)::bigint + greatest(0, coalesce(clock_off_us, 0) / 1000) FROM broker
WHERE node = %(node)s AND identity IS NOT NULL
