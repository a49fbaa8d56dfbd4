-- schedule_is_due: has a tick come? By both clocks, the wall clock given and PostgreSQL's: one alone that is ahead starts nothing. Index: schedule_due.
SELECT EXISTS (SELECT FROM schedule WHERE NOT paused AND next_at_us <= least(%(now)s::bigint, (extract(epoch FROM now()) * 1000000)::bigint))
