-- lock_leased: whoever is about to end leases holds their messages; always in this order. What nobody has stays free: a fetch would pass it by.
-- Index: message_pkey, lease_pkey.
SELECT m.id FROM message m JOIN lease l ON l.id = m.id WHERE m.id = ANY(%(ids)s) ORDER BY m.id FOR UPDATE OF m
