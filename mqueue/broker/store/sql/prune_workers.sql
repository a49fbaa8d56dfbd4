-- prune_workers: those that were not heard of for long. Some hundreds of rows: read whole.
DELETE FROM worker WHERE seen_at < now() - make_interval(secs => %(unheard)s)
