-- delete_leases: deletes leases that a settle has ended. Index: lease_pkey.
-- moves: LEASED -release-> UNPLACED
DELETE FROM lease WHERE id = ANY(%(ids)s)
