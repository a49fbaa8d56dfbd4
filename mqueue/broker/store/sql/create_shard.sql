-- create_shard: the first broker writes it. Index: shard_pkey.
INSERT INTO shard (number, shards) VALUES (%(number)s, %(shards)s) ON CONFLICT DO NOTHING
