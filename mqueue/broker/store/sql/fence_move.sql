-- fence_move: as `fence`, of a transaction that will move the shard row: the stronger lock at once, since two that wait to strengthen a shared
-- one would wait for each other. Index: shard_pkey.
SELECT dirty_number FROM shard WHERE epoch = %(epoch)s AND term = %(term)s FOR NO KEY UPDATE
