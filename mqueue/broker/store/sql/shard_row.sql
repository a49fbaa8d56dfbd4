-- shard_row: the life of the shard, its clock, and the timeline of the PostgreSQL that answers. Index: shard_pkey.
SELECT number, shards, epoch, term, mode, run_id, dirty_number, greatest(shard.clock_us, tick.clock_us), timeline,
       ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
FROM shard, tick
