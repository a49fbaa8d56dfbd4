-- ensure_topics: topics are made on first use. Index: topic_namespace_name_key.
INSERT INTO topic (namespace, name) SELECT * FROM unnest(%(namespaces)s::text[], %(names)s::text[]) ON CONFLICT DO NOTHING
