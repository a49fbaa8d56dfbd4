-- brokers: how far each is flushed and replayed, for how long it has been silent, whether it reaches Redis, its last heartbeat, whether its position
-- went back, and how far its wall clock is off that of PostgreSQL. Index: broker_pkey.
SELECT node, position, started, replayed, extract(epoch FROM now() - seen_at)::float8 AS silent_s, reaches, extract(epoch FROM seen_at)::float8,
       known > position AS was_set_back, clock_off_us / 1e6::float8
FROM broker ORDER BY node
