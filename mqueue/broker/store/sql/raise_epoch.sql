-- raise_epoch: closes the epoch: from here on its flushes fail. Index: shard_pkey.
UPDATE shard SET epoch = greatest(epoch, %(floor)s) + 1, mode = 'recovering', run_id = '' WHERE term = %(term)s RETURNING epoch
