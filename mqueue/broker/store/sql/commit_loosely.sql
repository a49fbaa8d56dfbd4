-- commit_loosely: this transaction does not wait for the disk: who reads it, and waits, takes it along. Returns PostgreSQL's wall clock, µs.
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, set_config('synchronous_commit', 'off', true)
