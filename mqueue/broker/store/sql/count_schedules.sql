-- count_schedules: how many a namespace has here. Index: schedule_pkey.
SELECT count(*) FROM schedule WHERE namespace = %(namespace)s
