-- refused_among: tells which of these messages are set aside, and in which version. Index: refused_pkey.
SELECT id, version FROM refused WHERE id = ANY(%(ids)s::bigint[])
