-- one_unique: past Redis, until the transaction ends: no other broker looks for a unique key and enqueues under it meanwhile.
SELECT pg_advisory_xact_lock(1835104599, 0)
