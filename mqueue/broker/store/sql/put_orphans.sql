-- put_orphans: outcomes whose enqueue has not arrived; the latest of each message. Index: orphan_pkey.
INSERT INTO orphan AS o (id, kind, version, attempts, due_us, origin_node, origin_sequence, error)
SELECT * FROM unnest(%(ids)s::bigint[], %(kinds)s::text[], %(versions)s::int[], %(attempts)s::int[], %(dues)s::bigint[], %(nodes)s::int[],
                     %(sequences)s::bigint[], %(errors)s::text[])
ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, version = excluded.version, attempts = excluded.attempts, due_us = excluded.due_us,
                               error = excluded.error
WHERE o.version < excluded.version
