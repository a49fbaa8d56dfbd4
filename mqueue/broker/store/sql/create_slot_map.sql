-- create_slot_map: writes the slot map once: slot mod number of shards.
INSERT INTO slot (map)
SELECT (SELECT array_agg(s %% %(shards)s ORDER BY s) FROM generate_series(0, 16383) s) WHERE NOT EXISTS (SELECT FROM slot)
