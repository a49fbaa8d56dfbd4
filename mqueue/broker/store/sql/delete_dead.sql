-- delete_dead: dead letters of a topic, by id. Index: dead_letter_pkey.
-- moves: nothing
DELETE FROM dead_letter d USING topic t
WHERE d.topic_id = t.id AND t.namespace = %(namespace)s AND t.name = %(name)s AND d.id = ANY(%(ids)s) RETURNING d.id
