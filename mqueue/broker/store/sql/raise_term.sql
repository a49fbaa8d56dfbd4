-- raise_term: raises the term, a new leader's first act. Through the gate, as `fence_move`. Index: shard_pkey.
UPDATE shard SET term = greatest(term, %(floor)s) + 1, leader = %(node)s FROM (SELECT pg_advisory_xact_lock(1835104598, 0)) gate RETURNING term
