-- register_broker: the node number of a WAL identity: the one it has, the one named, or the least free. Index: broker_pkey, broker_identity_key.
INSERT INTO broker (node, identity, host)
SELECT coalesce(
         (SELECT node FROM broker WHERE identity = %(identity)s),
         %(node)s::int,
         (SELECT min(n) FROM generate_series(1, 1023) n WHERE NOT EXISTS (SELECT FROM broker b WHERE b.node = n))),
       %(identity)s, %(host)s
ON CONFLICT (identity) DO UPDATE SET host = excluded.host, seen_at = now()
RETURNING node, position
