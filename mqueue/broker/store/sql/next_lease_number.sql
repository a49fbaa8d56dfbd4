-- next_lease_number: the second half of a receipt, where PostgreSQL leases. Its upper half is chance: fetches do not wait for the disk, and after a
-- crash the sequence may be set back.
SELECT ((random() * 2147483646)::bigint << 32) | (nextval('lease_number') & 4294967295)
