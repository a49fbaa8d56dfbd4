-- progress_of: the reports of those that run this message and told how far it is. Some hundreds of rows: read whole.
SELECT report::text FROM worker WHERE %(id)s = ANY(progressing) AND seen_at > now() - make_interval(secs => %(unheard)s) LIMIT 10
