-- fence_replay: replays into one shard come one after the other, in the epoch they were asked for. Index: shard_pkey.
SELECT dirty_number FROM shard WHERE epoch = %(epoch)s FOR UPDATE
