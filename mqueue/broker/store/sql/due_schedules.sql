-- due_schedules: schedules whose next tick has come, as `schedule_is_due` asks it, the oldest tick first; and that time. One that is being edited
-- comes at the next look. Index: schedule_due.
SELECT s.namespace, s.name, s.topic, s.cron, s.timezone, s.every_us, s.anchor_us, s.catch_up, s.payload, s.metadata::text, s.priority, s.max_retries,
       s.lease_ms, s.ttl_us, s.paused, s.next_at_us, s.last_at_us, s.declared, clock.now_us
FROM (SELECT least(%(now)s::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) AS now_us) clock, schedule s
WHERE NOT s.paused AND s.next_at_us <= clock.now_us ORDER BY s.next_at_us LIMIT %(limit)s FOR UPDATE OF s SKIP LOCKED
