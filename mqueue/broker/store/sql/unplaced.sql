-- unplaced: does one of these arrivals still wait for the leader? Index: arrival_pkey.
SELECT EXISTS (SELECT FROM arrival WHERE id = ANY(%(ids)s))
