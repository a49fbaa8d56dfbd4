-- move_shard: N and the clock move with the flush. Index: shard_pkey.
UPDATE shard SET dirty_number = greatest(dirty_number, %(number)s), clock_us = greatest(clock_us, %(clock)s)
