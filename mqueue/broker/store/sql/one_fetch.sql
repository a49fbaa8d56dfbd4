-- one_fetch: fetches of a topic come one after the other: each sees what the last one leased, and none passes by what another only looked at.
-- Always in one order. Index: topic_namespace_name_key.
SELECT pg_advisory_xact_lock(1835104597, id) FROM (SELECT id FROM topic WHERE namespace = %(namespace)s AND name = ANY(%(names)s) ORDER BY id) t
