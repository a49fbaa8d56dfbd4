-- How far a broker's wall clock was off that of PostgreSQL at its last heartbeat, µs: one that is off leads only where no other can. NULL: an older
-- release, which does not tell.

ALTER TABLE broker ADD COLUMN clock_off_us bigint;
