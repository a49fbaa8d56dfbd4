-- workers: those that were heard of lately, with a topic in one of these namespaces (null: in any). Some hundreds of rows: read whole.
SELECT report::text, (extract(epoch FROM seen_at) * 1000000)::bigint FROM worker
WHERE seen_at > now() - make_interval(secs => %(unheard)s) AND (%(namespaces)s::text[] IS NULL OR namespaces && %(namespaces)s::text[])
ORDER BY name, namespaces LIMIT %(limit)s
