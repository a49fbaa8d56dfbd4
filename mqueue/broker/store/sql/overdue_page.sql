-- overdue_page: keys of a topic's rows between two keys that were due long ago, in key order. Index: message_key.
SELECT priority, rank, deliver_after_us, id FROM message
WHERE topic_id = %(topic_id)s AND (priority, rank, deliver_after_us, id) > (%(priority)s, %(rank)s, %(due)s, %(id)s)
  AND (priority, rank, deliver_after_us, id) < (%(to_priority)s, %(to_rank)s, %(to_due)s, %(to_id)s) AND deliver_after_us < %(before)s
ORDER BY priority, rank, deliver_after_us, id LIMIT %(limit)s
