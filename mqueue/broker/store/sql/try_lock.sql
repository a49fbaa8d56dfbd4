-- try_lock: elects the leader, for as long as this session lives.
SELECT pg_try_advisory_lock(%(key)s)
