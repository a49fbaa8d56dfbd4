-- next_priority: the next priority and rank of which a topic has a row, after these and below a key. Index: message_key.
SELECT priority, rank FROM message
WHERE topic_id = %(topic_id)s AND (priority, rank) > (%(priority)s, %(rank)s)
  AND (priority, rank, deliver_after_us, id) < (%(to_priority)s, %(to_rank)s, %(to_due)s, %(to_id)s)
ORDER BY priority, rank, deliver_after_us, id LIMIT 1
