-- fence_move: as `fence`, of a transaction that will move the shard row: the stronger lock at once, since two that wait to strengthen a shared
-- one would wait for each other; through the gate first, since those who share it may never leave a gap. Index: shard_pkey.
SELECT dirty_number FROM (SELECT pg_advisory_xact_lock(1835104598, 0)) gate, shard
WHERE epoch = %(epoch)s AND term = %(term)s FOR NO KEY UPDATE OF shard
