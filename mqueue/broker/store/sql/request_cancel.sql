-- request_cancel: these run, and are to be cancelled. One transaction after the other, so that the numbers become visible in their order.
-- Index: cancel_request_pkey.
INSERT INTO cancel_request (id, namespace, requested_at)
SELECT r.id, r.namespace, now() FROM (SELECT pg_advisory_xact_lock(1835104598, 1)) gate,
  unnest(%(ids)s::bigint[], %(namespaces)s::text[]) AS r (id, namespace)
ON CONFLICT (id) DO NOTHING
