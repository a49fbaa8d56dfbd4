-- register_broker: the node number of a WAL identity: the one it has, the one named, the least that nobody ever had, or the least that was freed.
-- No row where another broker has it, or all are taken. Index: broker_pkey, broker_identity_key.
INSERT INTO broker AS b (node, identity, host)
SELECT free.node, %(identity)s, %(host)s FROM (SELECT coalesce(
         (SELECT node FROM broker WHERE identity = %(identity)s),
         %(node)s::int,
         (SELECT min(n) FROM generate_series(1, 1023) n WHERE NOT EXISTS (SELECT FROM broker b WHERE b.node = n)),
         (SELECT min(node) FROM broker WHERE identity IS NULL)) AS node) free
WHERE free.node IS NOT NULL
ON CONFLICT (node) DO UPDATE SET identity = excluded.identity, host = excluded.host, seen_at = now(), replayed = 0
WHERE b.identity = excluded.identity OR b.identity IS NULL
RETURNING node, position, started, id_floor_ms
