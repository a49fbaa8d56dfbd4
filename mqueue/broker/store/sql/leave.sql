-- leave: this broker stops, and uses no epoch any more. Index: broker_pkey.
UPDATE broker SET seen_at = to_timestamp(0) WHERE node = %(node)s
