-- move_ledger: adds to the counters of each topic what a transaction has really changed. Index: topic_pkey.
UPDATE topic t SET enqueued = t.enqueued + d.enqueued, acked = t.acked + d.acked, dead = t.dead + d.dead, expired = t.expired + d.expired,
                   purged = t.purged + d.purged, cancelled = t.cancelled + d.cancelled
FROM unnest(%(ids)s::int[], %(enqueued)s::bigint[], %(acked)s::bigint[], %(dead)s::bigint[], %(expired)s::bigint[], %(purged)s::bigint[],
            %(cancelled)s::bigint[]) AS d (id, enqueued, acked, dead, expired, purged, cancelled)
WHERE t.id = d.id
