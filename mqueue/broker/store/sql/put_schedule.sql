-- put_schedule: makes a schedule, or replaces it. Index: schedule_pkey.
INSERT INTO schedule (namespace, name, topic, cron, timezone, every_us, anchor_us, catch_up, payload, metadata, priority, max_retries, lease_ms,
                      ttl_us, paused, next_at_us, last_at_us, declared)
VALUES (%(namespace)s, %(name)s, %(topic)s, %(cron)s, %(timezone)s, %(every_us)s, %(anchor_us)s, %(catch_up)s, %(payload)s, %(metadata)s::json,
        %(priority)s, %(max_retries)s, %(lease_ms)s, %(ttl_us)s, %(paused)s, %(next_at_us)s, %(last_at_us)s, %(declared)s)
ON CONFLICT (namespace, name) DO UPDATE SET
  topic = excluded.topic, cron = excluded.cron, timezone = excluded.timezone, every_us = excluded.every_us, anchor_us = excluded.anchor_us,
  catch_up = excluded.catch_up, payload = excluded.payload, metadata = excluded.metadata, priority = excluded.priority,
  max_retries = excluded.max_retries, lease_ms = excluded.lease_ms, ttl_us = excluded.ttl_us, paused = excluded.paused,
  next_at_us = excluded.next_at_us, last_at_us = excluded.last_at_us, declared = excluded.declared
