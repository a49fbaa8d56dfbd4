-- create_shard: writes the shard row, by the first broker that comes. Index: shard_pkey.
INSERT INTO shard (number, shards) VALUES (%(number)s, %(shards)s) ON CONFLICT DO NOTHING
