-- ended: which of these messages have a result, or are dead. Index: result_pkey, dead_letter_pkey.
SELECT id FROM result WHERE id = ANY(%(ids)s) AND expires_at > now()
UNION ALL
SELECT id FROM dead_letter WHERE id = ANY(%(ids)s)
