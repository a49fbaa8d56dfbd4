-- heartbeat: this broker lives, has confirmed this epoch in this term (in another one it may be that of a closing which PostgreSQL forgot), reaches
-- Redis or not, and knows of this position; how far its wall clock is off that of PostgreSQL. Index: broker_pkey.
UPDATE broker SET seen_at = now(), started = greatest(started, %(started)s), reaches = %(reaches)s,
                  replayed = CASE WHEN %(term)s = (SELECT term FROM shard) THEN greatest(replayed, %(replayed)s) ELSE replayed END,
                  known = %(known)s, clock_off_us = %(wall_us)s - (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
WHERE node = %(node)s RETURNING position, clock_off_us
