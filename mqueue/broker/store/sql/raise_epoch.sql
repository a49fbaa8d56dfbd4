-- raise_epoch: closes the epoch: from here on its flushes fail. Its number is one that no broker has confirmed, though PostgreSQL may have forgotten
-- that it gave it. Through the gate, as `fence_move`. Index: shard_pkey.
UPDATE shard SET epoch = greatest(epoch, %(floor)s, (SELECT max(replayed) FROM broker WHERE replayed < 9223372036854775807)) + 1, mode = 'recovering', run_id = ''
FROM (SELECT pg_advisory_xact_lock(1835104598, 0)) gate WHERE term = %(term)s RETURNING epoch
