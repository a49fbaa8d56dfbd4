-- fence_replay: replays into one shard come one after the other, in the epoch they were asked for; those that are not late only until it is
-- opened: later nobody would look for their rows without an arrival. Through the gate, as `fence_move`. Index: shard_pkey.
SELECT dirty_number FROM (SELECT pg_advisory_xact_lock(1835104598, 0)) gate, shard
WHERE epoch = %(epoch)s AND (%(late)s OR mode = 'recovering') FOR UPDATE OF shard
