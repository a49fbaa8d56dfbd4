-- brokers: how far each is flushed and replayed, for how long it has been silent, whether it reaches Redis. Index: broker_pkey.
SELECT node, position, started, replayed, extract(epoch FROM now() - seen_at)::float8 AS silent_s, reaches FROM broker ORDER BY node
