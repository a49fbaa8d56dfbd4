-- fence: every daemon transaction begins here: no row comes back where another epoch or term stands. Index: shard_pkey.
SELECT dirty_number FROM shard WHERE epoch = %(epoch)s AND term = %(term)s FOR SHARE
