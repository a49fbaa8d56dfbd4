-- open_shard: the new epoch serves. Index: shard_pkey.
UPDATE shard SET mode = %(mode)s, run_id = %(run_id)s, timeline = %(timeline)s, dirty_number = 0
WHERE epoch = %(epoch)s AND term = %(term)s RETURNING true
