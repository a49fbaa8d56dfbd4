-- commit_loosely: this transaction need not wait for the disk: what reads it and does, takes it along. Returns PostgreSQL's wall clock, µs.
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, set_config('synchronous_commit', 'off', true)
