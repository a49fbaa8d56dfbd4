-- lock_messages: whoever is about to end leases holds their messages; always in this order. Index: message_pkey.
SELECT id FROM message WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE
