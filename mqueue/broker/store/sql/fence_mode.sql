-- fence_mode: a transaction past Redis holds the epoch and its mode while it lasts; no row where another one stands. The gate is fair: who waits to
-- move the shard row is not passed by. Returns what is due, and the clock now. What is due: later than any such transaction before it was told, and
-- no later one is told less, whichever broker it is of. The clock: PostgreSQL's own counts between two ticks only, and not after a flush or a replay
-- has moved the clock. Index: shard_pkey.
SELECT greatest(shard.clock_us, tick.clock_us, nextval('cold_clock')), greatest(shard.clock_us,
       tick.clock_us + coalesce(least(greatest(extract(epoch FROM clock_timestamp() - ticked_at), 0), 0.25) * 1000000, 0)::bigint)
FROM (SELECT pg_advisory_xact_lock_shared(1835104598, 0)) gate, shard, tick
WHERE epoch = %(epoch)s AND mode = %(mode)s FOR SHARE OF shard
