-- dead_page: dead letters of a topic, by id, until they weigh `size` bytes; `total`: with those before. What is left out
-- is never read: a long payload is only measured. Index: dead_letter_topic.
SELECT id, priority, attempts, error, created_at_us, died_at_us, payload, metadata, total
FROM (
    SELECT *, sum(weight) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING) AS total
    FROM (
        SELECT d.id, d.priority, d.attempts, d.error, d.created_at_us, d.died_at_us, d.payload, d.metadata::text AS metadata,
            octet_length(d.payload) + coalesce(octet_length(d.metadata::text), 0) + %(error_weight)s * coalesce(octet_length(d.error), 0) AS weight
        FROM dead_letter d JOIN topic t ON t.id = d.topic_id
        WHERE t.namespace = %(namespace)s AND t.name = %(name)s AND d.id > %(after)s ORDER BY d.id LIMIT %(limit)s
    ) found
) weighed
WHERE total - weight < %(size)s ORDER BY id
