-- fence_mode: a transaction past Redis holds the epoch and its mode while it lasts; no row where another one stands. The gate is fair: who waits to
-- move the shard row is not passed by. Returns the clock of the last tick, which no later one falls below, and the clock now: PostgreSQL's own
-- counts between two ticks only. Index: shard_pkey.
SELECT ticked, ticked + coalesce(least(greatest(extract(epoch FROM clock_timestamp() - ticked_at), 0), 0.25) * 1000000, 0)::bigint
FROM (SELECT pg_advisory_xact_lock_shared(1835104598, 0)) gate, shard,
     LATERAL (SELECT greatest(shard.clock_us, tick.clock_us) AS ticked, ticked_at FROM tick) clock
WHERE epoch = %(epoch)s AND mode = %(mode)s FOR SHARE OF shard
