-- fence_stands: returns epoch and term, for a leader who only looks. It waits for nobody, unlike `fence`. Index: shard_pkey.
SELECT epoch, term FROM shard
