-- unseat: ends the session that holds the leader's lock, if the broker that leads has been silent too long, and so has that session: it hangs, and
-- its lock with it; or if it is a former session of this broker's own, which nobody is behind any more. A session that has just taken the lock is
-- of the next leader, who is about to say so: it is left alone. Its wakened daemons find their term over. A heartbeat still to come is an old one
-- too: PostgreSQL's clock went back. Index: broker_pkey.
SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid, shard s JOIN broker b ON b.node = s.leader
WHERE l.locktype = 'advisory' AND l.granted AND l.classid = 0 AND l.objid = %(key)s::oid AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND abs(extract(epoch FROM clock_timestamp() - a.state_change)) > CASE WHEN b.node = %(node)s THEN 1 ELSE %(silent_s)s END
  AND CASE WHEN b.node = %(node)s THEN l.pid <> pg_backend_pid() ELSE abs(extract(epoch FROM now() - b.seen_at)) > %(silent_s)s END
