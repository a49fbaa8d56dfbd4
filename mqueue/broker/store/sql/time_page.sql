-- time_page: rows due from the time frontier up to the horizon that were not due when they came, in order of time. Index: message_due.
SELECT m.id, t.namespace || '/' || t.name, m.priority, m.rank, m.deliver_after_us, m.attempts, m.max_retries, m.version, m.lease_ms, m.origin_node,
       m.origin_sequence, m.expires_at_us, m.created_at_us, CASE WHEN total <= %(bytes)s OR nth = 1 THEN m.payload END, m.metadata::text, m.idempotency_key,
       m.unique_key
FROM (SELECT *, sum(octet_length(payload)) OVER w AS total, row_number() OVER w AS nth
      FROM (SELECT * FROM message
            WHERE deliver_after_us > created_at_us AND (deliver_after_us, id) >= (%(due)s, %(id)s) AND deliver_after_us < %(until)s
            ORDER BY deliver_after_us, id LIMIT %(limit)s) page
      WINDOW w AS (ORDER BY deliver_after_us, id ROWS UNBOUNDED PRECEDING)) m
JOIN topic t ON t.id = m.topic_id ORDER BY m.deliver_after_us, m.id
