-- schedule_page: reads the schedules of a namespace, by name. Index: schedule_pkey.
SELECT namespace, name, topic, cron, timezone, every_us, anchor_us, catch_up, ''::bytea, metadata::text, priority, max_retries, lease_ms, ttl_us,
       paused, next_at_us, last_at_us, declared
FROM schedule WHERE namespace = %(namespace)s AND name > %(after)s ORDER BY name LIMIT %(limit)s
