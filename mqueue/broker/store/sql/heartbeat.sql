-- heartbeat: this broker lives, and has confirmed this epoch. Index: broker_pkey.
UPDATE broker SET seen_at = now(), replayed = greatest(replayed, %(replayed)s), started = greatest(started, %(started)s)
WHERE node = %(node)s RETURNING position
