-- commit_loosely: this transaction need not wait for the disk: what reads it and does, takes it along.
SELECT set_config('synchronous_commit', 'off', true)
