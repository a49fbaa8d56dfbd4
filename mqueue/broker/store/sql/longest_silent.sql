-- longest_silent: the brokers that have been silent for longest: node, host, and for how many seconds; null: it has stopped. Index: broker_pkey.
SELECT node, host, CASE WHEN seen_at > to_timestamp(0) THEN extract(epoch FROM now() - seen_at)::float8 END
FROM broker WHERE identity IS NOT NULL ORDER BY seen_at, node LIMIT %(limit)s
