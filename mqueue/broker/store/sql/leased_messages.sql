-- leased_messages: what a settle must know, read once the rows are held. Index: message_pkey, lease_pkey, cancel_request_pkey.
SELECT m.id, t.id, t.namespace || '/' || t.name, m.attempts, m.max_retries, m.version, m.deliver_after_us, m.origin_node, m.origin_sequence,
       l.epoch, l.number, EXISTS (SELECT FROM cancel_request c WHERE c.id = m.id)
FROM message m JOIN topic t ON t.id = m.topic_id LEFT JOIN lease l ON l.id = m.id WHERE m.id = ANY(%(ids)s)
