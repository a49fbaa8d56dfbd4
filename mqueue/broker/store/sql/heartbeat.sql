-- heartbeat: this broker lives, has confirmed this epoch, and reaches Redis or not. Index: broker_pkey.
UPDATE broker SET seen_at = now(), replayed = greatest(replayed, %(replayed)s), started = greatest(started, %(started)s), reaches = %(reaches)s
WHERE node = %(node)s RETURNING position
