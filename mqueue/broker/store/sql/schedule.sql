-- schedule: reads one schedule and holds it: the scheduler passes it by until the edit is done. Index: schedule_pkey.
SELECT namespace, name, topic, cron, timezone, every_us, anchor_us, catch_up, payload, metadata::text, priority, max_retries, lease_ms, ttl_us,
       paused, next_at_us, last_at_us, declared
FROM schedule WHERE namespace = %(namespace)s AND name = %(name)s FOR UPDATE
