-- delete_leases: they ended. Index: lease_pkey.
DELETE FROM lease WHERE id = ANY(%(ids)s)
