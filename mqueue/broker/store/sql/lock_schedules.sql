-- lock_schedules: edits of a namespace's schedules come one after the other: a name is new to one of them only, and all are counted.
SELECT pg_advisory_xact_lock(1835104599, hashtext(%(namespace)s))
