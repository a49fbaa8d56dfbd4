-- refill_page: the next due rows at or above the frontier, in key order, and the first one left out; a row past the byte budget comes without
-- its payload (and is left out). Index: message_key.
SELECT id, priority, rank, deliver_after_us, attempts, max_retries, version, lease_ms, origin_node, origin_sequence, expires_at_us, created_at_us,
       CASE WHEN total <= %(bytes)s OR nth = 1 THEN payload END, metadata::text, idempotency_key, unique_key
FROM (SELECT *, sum(octet_length(payload)) OVER w AS total, row_number() OVER w AS nth
      FROM (SELECT * FROM message
            WHERE topic_id = %(topic_id)s AND (priority, rank, deliver_after_us, id) >= (%(priority)s, %(rank)s, %(due)s, %(id)s)
              AND deliver_after_us <= %(now)s AND (deliver_after_us, id) < (%(t_due)s, %(t_id)s)
            ORDER BY priority, rank, deliver_after_us, id LIMIT %(limit)s) page
      WINDOW w AS (ORDER BY priority, rank, deliver_after_us, id ROWS UNBOUNDED PRECEDING)) sized
ORDER BY priority, rank, deliver_after_us, id
