-- put_workers: what workers have told one broker since it last wrote. Index: worker_pkey.
INSERT INTO worker (name, namespaces, progressing, report)
SELECT name, string_to_array(namespaces, ' '), string_to_array(progressing, ' ')::bigint[], report::json
FROM unnest(%(names)s::text[], %(namespaces)s::text[], %(progressing)s::text[], %(reports)s::text[]) AS told (name, namespaces, progressing, report)
ON CONFLICT (name, namespaces) DO UPDATE SET progressing = excluded.progressing, report = excluded.report, seen_at = excluded.seen_at
