-- topic_ids: returns the ids of these topics. Index: topic_namespace_name_key.
SELECT t.id, t.namespace, t.name FROM topic t
JOIN unnest(%(namespaces)s::text[], %(names)s::text[]) AS wanted (namespace, name) USING (namespace, name)
