-- results_of: the results under this id, without (or with) their values. One but where somebody made up an id. Index: result_pkey.
SELECT namespace, topic, (extract(epoch FROM stored_at) * 1000000)::bigint, CASE WHEN %(values)s THEN value END
FROM result WHERE id = %(id)s AND expires_at > now() LIMIT 100
