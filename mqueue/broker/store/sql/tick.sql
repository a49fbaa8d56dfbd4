-- tick: the clock of a cold shard, which goes on from that of the last flush. Index: tick_pkey, shard_pkey.
UPDATE tick SET clock_us = greatest(tick.clock_us, shard.clock_us, %(clock)s), ticked_at = clock_timestamp() FROM shard RETURNING tick.clock_us
