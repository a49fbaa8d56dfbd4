-- shard_row: the life of the shard. Index: shard_pkey.
SELECT number, shards, epoch, term, mode, run_id, dirty_number, clock_us FROM shard
