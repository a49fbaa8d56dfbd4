-- open_shard: the new epoch serves, and its clock begins here or later. Through the gate, as `fence_move`. Index: shard_pkey.
UPDATE shard SET mode = %(mode)s, run_id = %(run_id)s, timeline = %(timeline)s, dirty_number = 0, clock_us = greatest(clock_us, %(clock)s)
FROM (SELECT pg_advisory_xact_lock(1835104598, 0)) gate WHERE epoch = %(epoch)s AND term = %(term)s RETURNING true
