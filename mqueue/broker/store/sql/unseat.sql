-- unseat: ends the session that holds the leader's lock, if the broker that leads has been silent too long: it hangs, and its lock with it; or if
-- it is a former session of this broker's own, which nobody is behind any more. Its wakened daemons find their term over. A heartbeat still to
-- come is an old one too: PostgreSQL's clock went back. Index: broker_pkey.
SELECT pg_terminate_backend(l.pid) FROM pg_locks l, shard s JOIN broker b ON b.node = s.leader
WHERE l.locktype = 'advisory' AND l.granted AND l.classid = 0 AND l.objid = %(key)s::oid AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND CASE WHEN b.node = %(node)s THEN l.pid <> pg_backend_pid() ELSE abs(extract(epoch FROM now() - b.seen_at)) > %(silent_s)s END
