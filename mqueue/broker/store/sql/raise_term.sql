-- raise_term: the new leader's first act. Index: shard_pkey.
UPDATE shard SET term = greatest(term, %(floor)s) + 1, leader = %(node)s RETURNING term
