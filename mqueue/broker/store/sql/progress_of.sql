-- progress_of: the reports of those of this namespace that run this message and told how far it is. Some hundreds of rows: read whole.
SELECT report::text FROM worker
WHERE %(id)s = ANY(progressing) AND %(namespace)s = ANY(namespaces) AND seen_at > now() - make_interval(secs => %(unheard)s) LIMIT 10
