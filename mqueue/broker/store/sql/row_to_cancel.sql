-- row_to_cancel: how far the shard is flushed, and a message as it is then, or nulls. Index: message_pkey.
SELECT s.epoch, s.dirty_number, t.namespace || '/' || t.name, m.priority, m.rank, m.deliver_after_us, m.attempts, m.max_retries, m.version, m.lease_ms,
       m.origin_node, m.origin_sequence, m.expires_at_us
FROM shard s LEFT JOIN message m ON m.id = %(id)s LEFT JOIN topic t ON t.id = m.topic_id
