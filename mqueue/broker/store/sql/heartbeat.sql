-- heartbeat: this broker lives, has confirmed this epoch, reaches Redis or not, and knows of this position. Index: broker_pkey.
UPDATE broker SET seen_at = now(), replayed = greatest(replayed, %(replayed)s), started = greatest(started, %(started)s), reaches = %(reaches)s,
                  known = %(known)s
WHERE node = %(node)s RETURNING position
