-- fence_mode: a transaction past Redis holds the epoch and its mode while it lasts; returns the clock. No row where another one stands.
-- Index: shard_pkey.
SELECT clock_us FROM shard WHERE epoch = %(epoch)s AND mode = %(mode)s FOR SHARE
