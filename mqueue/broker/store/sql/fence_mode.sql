-- fence_mode: a transaction past Redis holds the epoch and its mode while it lasts; no row where another one stands. Returns the clock of the last
-- tick, which no later one falls below, and the clock now: PostgreSQL's own clock counts between two ticks only. Index: shard_pkey.
SELECT clock_us, clock_us + coalesce(least(greatest(extract(epoch FROM clock_timestamp() - ticked_at), 0), 0.25) * 1000000, 0)::bigint
FROM shard WHERE epoch = %(epoch)s AND mode = %(mode)s FOR SHARE
