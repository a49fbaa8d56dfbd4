-- fence_replay: replays into one shard come one after the other, in the epoch they were asked for; those that are not late only until it is
-- opened: later nobody would look for their rows without an arrival. Index: shard_pkey.
SELECT dirty_number FROM shard WHERE epoch = %(epoch)s AND (%(late)s OR mode = 'recovering') FOR UPDATE
