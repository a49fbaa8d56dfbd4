-- workers: those that were heard of lately, with a topic in one of these namespaces (null: in any), by name, as much as one answer takes. Some
-- hundreds of rows: read whole.
SELECT report, seen_us FROM (
  SELECT report::text AS report, (extract(epoch FROM seen_at) * 1000000)::bigint AS seen_us, name, namespaces,
         sum(octet_length(report::text)) OVER (ORDER BY name, namespaces) AS bytes
  FROM worker
  WHERE seen_at > now() - make_interval(secs => %(unheard)s) AND (%(namespaces)s::text[] IS NULL OR namespaces && %(namespaces)s::text[])
) heard
WHERE bytes <= %(bytes)s ORDER BY name, namespaces LIMIT %(limit)s
