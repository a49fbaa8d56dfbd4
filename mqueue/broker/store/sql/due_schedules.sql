-- due_schedules: schedules whose next tick has come, as `schedule_is_due` asks it, the oldest tick first; and that time. One that is being edited
-- comes at the next look. Index: schedule_due.
SELECT namespace, name, topic, cron, timezone, every_us, anchor_us, catch_up, payload, metadata::text, priority, max_retries, lease_ms, ttl_us,
       paused, next_at_us, last_at_us, declared, least(%(now)s::bigint, (extract(epoch FROM now()) * 1000000)::bigint)
FROM schedule WHERE NOT paused AND next_at_us <= least(%(now)s::bigint, (extract(epoch FROM now()) * 1000000)::bigint)
ORDER BY next_at_us LIMIT %(limit)s FOR UPDATE SKIP LOCKED
