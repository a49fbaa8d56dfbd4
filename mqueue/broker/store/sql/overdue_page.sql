-- overdue_page: keys of a topic's rows of one priority and rank, above one key and below another, that were due long ago, in key order.
-- What is not due is no part of the range that the index reads. Index: message_key.
SELECT priority, rank, deliver_after_us, id FROM message
WHERE topic_id = %(topic_id)s AND priority = %(priority)s AND rank = %(rank)s AND (deliver_after_us, id) > (%(due)s, %(id)s)
  AND (priority, rank, deliver_after_us, id) < (%(to_priority)s, %(to_rank)s, %(to_due)s, %(to_id)s) AND deliver_after_us < %(before)s
ORDER BY deliver_after_us, id LIMIT %(limit)s
