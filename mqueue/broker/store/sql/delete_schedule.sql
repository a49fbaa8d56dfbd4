-- delete_schedule: says whether it was there. Index: schedule_pkey.
DELETE FROM schedule WHERE namespace = %(namespace)s AND name = %(name)s RETURNING true
