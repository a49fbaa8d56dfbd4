-- result_of: a result under this id, of this topic and these namespaces (null: of any), without (or with) its value: anybody may make up an id,
-- in a namespace of his. Index: result_pkey.
SELECT namespace, topic, (extract(epoch FROM stored_at) * 1000000)::bigint, CASE WHEN %(values)s THEN value END
FROM result
WHERE id = %(id)s AND expires_at > now() AND (%(namespaces)s::text[] IS NULL OR namespace = ANY(%(namespaces)s::text[]))
  AND (%(topic)s::text IS NULL OR topic = %(topic)s::text)
LIMIT 1
