-- move_position: notes the last sequence flushed, per broker. Index: broker_pkey.
UPDATE broker SET position = greatest(broker.position, moved.position)
FROM unnest(%(nodes)s::int[], %(positions)s::bigint[]) AS moved (node, position)
WHERE broker.node = moved.node
