-- How far a broker's wall clock was off that of PostgreSQL at its last heartbeat, µs: one that is off leads only where no other can.

ALTER TABLE broker ADD COLUMN clock_off_us bigint NOT NULL DEFAULT 0;
