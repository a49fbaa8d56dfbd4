-- lock_messages: those past their TTL are held before they go; in the order of `lock_leased`. Index: message_pkey.
SELECT id FROM message WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE
