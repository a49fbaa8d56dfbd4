-- delete_leases: they ended. Index: lease_pkey.
-- moves: LEASED -release-> UNPLACED
DELETE FROM lease WHERE id = ANY(%(ids)s)
