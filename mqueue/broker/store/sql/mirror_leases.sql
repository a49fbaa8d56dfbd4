-- mirror_leases: long leases, as Redis has them. Index: lease_pkey.
-- moves: nothing
INSERT INTO lease AS l (id, epoch, number, until_us)
SELECT * FROM unnest(%(ids)s::bigint[], %(epochs)s::bigint[], %(numbers)s::bigint[], %(untils)s::bigint[])
ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, number = excluded.number, until_us = excluded.until_us
WHERE (l.epoch, l.number, l.until_us) <> (excluded.epoch, excluded.number, excluded.until_us)
