-- lease_page: leases the least due messages of these topics that nobody has, in key order; a row past the byte budget stays. Of two brokers
-- that pick the same one the insert into `lease` lets one have it. Index: message_key, lease_pkey.
-- moves: UNPLACED -fetch-> LEASED
WITH picked AS (
  SELECT m.* FROM topic t CROSS JOIN LATERAL (
    SELECT * FROM message m
    WHERE m.topic_id = t.id AND m.deliver_after_us <= %(due)s AND (m.expires_at_us IS NULL OR m.expires_at_us > %(now)s)
      AND NOT EXISTS (SELECT FROM lease l WHERE l.id = m.id)
    ORDER BY m.priority, m.rank, m.deliver_after_us, m.id LIMIT %(limit)s FOR UPDATE OF m SKIP LOCKED) m
  WHERE t.namespace = %(namespace)s AND t.name = ANY(%(names)s)
  ORDER BY m.priority, m.rank, m.deliver_after_us, m.id LIMIT %(limit)s),
sized AS (
  SELECT *, sum(octet_length(payload)) OVER w AS total, row_number() OVER w AS nth FROM picked
  WINDOW w AS (ORDER BY priority, rank, deliver_after_us, id ROWS UNBOUNDED PRECEDING)),
leased AS (
  INSERT INTO lease AS l (id, epoch, number, until_us)
  SELECT id, %(epoch)s, %(number)s, %(now)s + coalesce(nullif(%(lease_ms)s, 0), lease_ms)::bigint * 1000 FROM sized WHERE total <= %(bytes)s OR nth = 1
  ON CONFLICT (id) DO NOTHING RETURNING l.id, l.until_us)
SELECT p.id, t.namespace || '/' || t.name, p.priority, p.rank, p.deliver_after_us, p.attempts, p.max_retries, p.version, p.lease_ms, p.origin_node,
       p.origin_sequence, p.expires_at_us, p.created_at_us, p.payload, p.metadata::text, p.idempotency_key, p.unique_key, l.until_us
FROM leased l JOIN picked p USING (id) JOIN topic t ON t.id = p.topic_id ORDER BY p.priority, p.rank, p.deliver_after_us, p.id
