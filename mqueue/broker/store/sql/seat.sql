-- seat: a broker by its identity. Index: broker_identity_key.
SELECT node, position, started, extract(epoch FROM now() - seen_at)::float8 FROM broker WHERE identity = %(identity)s
