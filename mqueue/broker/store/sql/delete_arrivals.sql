-- delete_arrivals: deletes the announcements of rows that the leader has placed. Index: arrival_pkey.
DELETE FROM arrival WHERE id = ANY(%(ids)s)
