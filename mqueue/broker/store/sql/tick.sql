-- tick: the clock of a cold shard, which goes on from that of the last flush; what has come is due. Where the clock has stood, what is due stays: some
-- may be told more of it at this moment, and it may not go back. Index: tick_pkey, shard_pkey.
UPDATE tick SET clock_us = greatest(tick.clock_us, shard.clock_us, %(clock)s), ticked_at = clock_timestamp() FROM shard
RETURNING tick.clock_us, CASE WHEN tick.clock_us > (SELECT last_value FROM cold_clock) + 1000 THEN setval('cold_clock', tick.clock_us) END
