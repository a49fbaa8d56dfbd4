-- The clock of a cold shard leaves the shard row: its ticks neither wait for those who hold that row, nor do they wait for a tick.

CREATE TABLE tick (                       -- one row
  one       boolean PRIMARY KEY DEFAULT true CHECK (one),
  clock_us  bigint NOT NULL DEFAULT 0,
  ticked_at timestamptz                   -- by PostgreSQL's clock
);
INSERT INTO tick DEFAULT VALUES;
ALTER TABLE shard DROP COLUMN ticked_at;
