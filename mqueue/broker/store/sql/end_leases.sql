-- end_leases: ends those leases, of messages that are held, that were not renewed meanwhile. Index: lease_pkey.
-- moves: LEASED -lease_expiry-> UNPLACED
DELETE FROM lease WHERE id = ANY(%(ids)s) AND until_us <= %(now)s RETURNING id
