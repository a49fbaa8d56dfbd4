-- settle_rows: rows wait again after a nack, past Redis or in a replay; the greater version stays. Index: message_pkey.
-- moves: LEASED -nack-> UNPLACED, LEASED -release-> UNPLACED, LEASED -lease_expiry-> UNPLACED
UPDATE message m SET version = s.version, attempts = s.attempts, deliver_after_us = s.due_us, error = coalesce(nullif(s.error, ''), m.error)
FROM unnest(%(ids)s::bigint[], %(versions)s::int[], %(attempts)s::int[], %(dues)s::bigint[], %(errors)s::text[]) AS s (id, version, attempts, due_us, error)
WHERE m.id = s.id AND m.version < s.version
