-- orphans_of: outcomes that came before these enqueues. Index: orphan_pkey.
DELETE FROM orphan WHERE id = ANY(%(ids)s) RETURNING id, kind, version, attempts, due_us, error
