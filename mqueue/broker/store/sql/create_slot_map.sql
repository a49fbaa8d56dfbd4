-- create_slot_map: slot mod number of shards, once.
INSERT INTO slot (map)
SELECT (SELECT array_agg(s %% %(shards)s ORDER BY s) FROM generate_series(0, 16383) s) WHERE NOT EXISTS (SELECT FROM slot)
