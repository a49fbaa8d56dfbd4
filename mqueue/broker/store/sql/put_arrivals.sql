-- put_arrivals: announces rows that came another way than through Redis. Index: arrival_pkey.
INSERT INTO arrival (id) SELECT id FROM message WHERE id = ANY(%(ids)s) ON CONFLICT DO NOTHING
