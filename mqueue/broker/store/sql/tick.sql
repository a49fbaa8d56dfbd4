-- tick: the clock of a cold shard. Index: shard_pkey.
UPDATE shard SET clock_us = greatest(clock_us, %(clock)s), ticked_at = clock_timestamp() RETURNING clock_us
