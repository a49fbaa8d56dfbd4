-- Running messages that are to be cancelled: their workers ask for them, and whatever ends their lease but an ack ends them.

CREATE TABLE cancel_request (
  id           bigint      PRIMARY KEY,
  namespace    text        NOT NULL,
  number       bigint      NOT NULL GENERATED ALWAYS AS IDENTITY, -- they become visible in this order
  requested_at timestamptz NOT NULL                               -- by PostgreSQL's clock
);
CREATE INDEX cancel_request_number ON cancel_request (number);

ALTER TABLE orphan DROP CONSTRAINT orphan_kind_check;
ALTER TABLE orphan ADD CONSTRAINT orphan_kind_check CHECK (kind IN ('ack', 'cancel', 'dead', 'nack'));
