-- The cold path: where Redis is away, PostgreSQL leases. And what a leader must know of the other brokers.

CREATE TABLE lease (                      -- who has a message: on the cold path each lease; else those that have lasted long (mirrored)
  id       bigint PRIMARY KEY,
  epoch    bigint NOT NULL,               -- with number: the receipt
  number   bigint NOT NULL,
  until_us bigint NOT NULL
);
CREATE INDEX lease_until ON lease (until_us);
COMMENT ON TABLE lease IS 'Whoever changes a lease for good (settle, expiry) holds the row of its message.';

CREATE SEQUENCE lease_number;

ALTER TABLE idempotency ADD COLUMN ids bytea;              -- of the key of a whole request: all its ids, as runs
ALTER TABLE broker ADD COLUMN reaches boolean NOT NULL DEFAULT true;  -- could it reach Redis when it was last seen?
ALTER TABLE shard ADD COLUMN ticked_at timestamptz;        -- when the clock of a cold shard was moved
ALTER TABLE shard ADD COLUMN leader int;                   -- node of the broker that raised the term
CREATE INDEX idempotency_request ON idempotency (expires_at_us) WHERE ids IS NOT NULL;
