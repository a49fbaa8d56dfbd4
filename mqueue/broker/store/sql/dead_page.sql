-- dead_page: dead letters of a topic, by id. Index: dead_letter_topic.
SELECT d.id, d.priority, d.attempts, d.error, d.created_at_us, d.died_at_us, d.payload, d.metadata::text
FROM dead_letter d JOIN topic t ON t.id = d.topic_id
WHERE t.namespace = %(namespace)s AND t.name = %(name)s AND d.id > %(after)s ORDER BY d.id LIMIT %(limit)s
