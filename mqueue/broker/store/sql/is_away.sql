-- is_away: has this broker perhaps messages in its log that the epoch does not know, since it was opened without its replay? Index: broker_pkey.
SELECT EXISTS (SELECT FROM broker WHERE node = %(node)s AND identity IS NOT NULL AND replayed < %(epoch)s)
