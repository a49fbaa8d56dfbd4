-- raise_epoch: closes the epoch: from here on its flushes fail. Through the gate, as `fence_move`. Index: shard_pkey.
UPDATE shard SET epoch = greatest(epoch, %(floor)s) + 1, mode = 'recovering', run_id = ''
FROM (SELECT pg_advisory_xact_lock(1835104598, 0)) gate WHERE term = %(term)s RETURNING epoch
