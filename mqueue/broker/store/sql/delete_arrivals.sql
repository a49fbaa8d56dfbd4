-- delete_arrivals: they are placed. Index: arrival_pkey.
DELETE FROM arrival WHERE id = ANY(%(ids)s)
