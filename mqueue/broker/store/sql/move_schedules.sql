-- move_schedules: moves schedules to their next tick, in the transaction that enqueues their ticks. Index: schedule_pkey.
UPDATE schedule s SET next_at_us = moved.next_us, last_at_us = coalesce(moved.last_us, s.last_at_us)
FROM unnest(%(namespaces)s::text[], %(names)s::text[], %(nexts)s::bigint[], %(lasts)s::bigint[]) AS moved (namespace, name, next_us, last_us)
WHERE s.namespace = moved.namespace AND s.name = moved.name
