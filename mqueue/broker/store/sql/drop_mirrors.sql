-- drop_mirrors: deletes leases that are not among the long ones any more. Index: lease_pkey.
-- moves: nothing
DELETE FROM lease l WHERE NOT EXISTS (SELECT FROM unnest(%(ids)s::bigint[]) AS kept (id) WHERE kept.id = l.id)
