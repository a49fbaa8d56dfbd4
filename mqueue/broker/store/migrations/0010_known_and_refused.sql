-- What a broker has seen of its own position: a server that forgets commits, its timeline as it was, is found out by it.

ALTER TABLE broker ADD COLUMN known bigint NOT NULL DEFAULT 0;

-- What PostgreSQL refuses as a row (a trigger, a constraint, a text it cannot store) is set aside here, as bytes that it cannot refuse.
CREATE TABLE refused (
  id         bigint      PRIMARY KEY,
  topic_id   int         NOT NULL REFERENCES topic,
  version    int         NOT NULL,
  state      bytea       NOT NULL,         -- as in its record in Redis
  body       bytea       NOT NULL,         -- as in Redis: what mqueue/broker/format/record.py calls a body
  error      bytea,
  reason     text        NOT NULL,         -- of PostgreSQL, with its SQLSTATE
  refused_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX refused_topic ON refused (topic_id);
