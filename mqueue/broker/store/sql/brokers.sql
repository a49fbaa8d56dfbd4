-- brokers: who lives (a heartbeat within `alive_s`), how far each is flushed and replayed. Index: broker_pkey.
SELECT node, position, started, replayed, seen_at > now() - make_interval(secs => %(alive_s)s) AS alive FROM broker ORDER BY node
