-- leave: this broker stops, and uses no epoch any more. Where all of its log is flushed nothing is to be replayed until it starts again.
-- Index: broker_pkey.
UPDATE broker SET seen_at = to_timestamp(0), replayed = CASE WHEN %(flushed)s THEN 9223372036854775807 ELSE replayed END WHERE node = %(node)s
