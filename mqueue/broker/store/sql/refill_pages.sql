-- refill_pages: of each of these topics the next due rows at or above its frontier, in key order, and the first one left out; `nth`: which topic.
-- A row past the byte budget comes without its payload (and is left out). What no row names has no rows. It is asked in three parts, so that rows
-- which are due later are skipped by the index, however many they are (PostgreSQL 18 and later). Index: topic_namespace_name_key, message_key.
SELECT id, nth, priority, rank, deliver_after_us, attempts, max_retries, version, lease_ms, origin_node, origin_sequence, expires_at_us, created_at_us,
       CASE WHEN total <= %(bytes)s OR row = 1 THEN payload END, metadata::text, idempotency_key, unique_key
FROM (SELECT asked.nth, m.*, sum(octet_length(m.payload)) OVER w AS total, row_number() OVER w AS row
      FROM unnest(%(namespaces)s::text[], %(names)s::text[], %(priorities)s::int[], %(ranks)s::int[], %(dues)s::bigint[], %(ids)s::bigint[],
                  %(limits)s::int[]) WITH ORDINALITY AS asked (namespace, name, priority, rank, due, id, most, nth)
      JOIN topic t ON t.namespace = asked.namespace AND t.name = asked.name
      CROSS JOIN LATERAL (
        WITH same AS MATERIALIZED (
          SELECT * FROM message WHERE topic_id = t.id AND priority = asked.priority AND rank = asked.rank
            AND (deliver_after_us, id) >= (asked.due, asked.id) AND deliver_after_us <= least(%(now)s, %(t_due)s) AND (deliver_after_us < %(t_due)s OR id < %(t_id)s)
          ORDER BY priority, rank, deliver_after_us, id LIMIT asked.most),
        next AS MATERIALIZED (
          SELECT * FROM message WHERE topic_id = t.id AND priority = asked.priority AND rank > asked.rank AND deliver_after_us <= least(%(now)s, %(t_due)s) AND (deliver_after_us < %(t_due)s OR id < %(t_id)s)
          ORDER BY priority, rank, deliver_after_us, id LIMIT asked.most - (SELECT count(*) FROM same)),
        rest AS (
          SELECT * FROM message WHERE topic_id = t.id AND priority > asked.priority AND deliver_after_us <= least(%(now)s, %(t_due)s) AND (deliver_after_us < %(t_due)s OR id < %(t_id)s)
          ORDER BY priority, rank, deliver_after_us, id LIMIT asked.most - (SELECT count(*) FROM same) - (SELECT count(*) FROM next))
        SELECT * FROM same UNION ALL SELECT * FROM next UNION ALL SELECT * FROM rest) m
      WINDOW w AS (ORDER BY asked.nth, m.priority, m.rank, m.deliver_after_us, m.id ROWS UNBOUNDED PRECEDING)) sized
ORDER BY nth, priority, rank, deliver_after_us, id
