-- shard_row: the life of the shard, its clock, the timeline of the PostgreSQL that answers, its wall clock, µs, and its start. Index: shard_pkey.
SELECT number, shards, epoch, term, mode, run_id, dirty_number, greatest(shard.clock_us, tick.clock_us, (SELECT last_value FROM cold_clock)), timeline,
       ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int,
       (extract(epoch FROM now()) * 1000000)::bigint, extract(epoch FROM pg_postmaster_start_time())::float8
FROM shard, tick
