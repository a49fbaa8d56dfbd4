-- What acked messages leave behind, if they leave something.

CREATE TABLE result (                     -- of two deliveries of one message (a sleeper's late ack) the later one's stands
  id         bigint      NOT NULL,
  namespace  text        NOT NULL,
  topic      text        NOT NULL,
  receipt    bytea       NOT NULL,        -- epoch and number of the delivery, as bytes that sort
  value      bytea       NOT NULL,
  stored_at  timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  CONSTRAINT result_pkey PRIMARY KEY (id, namespace, topic)
);
CREATE INDEX result_expiry ON result (expires_at);
COMMENT ON TABLE result IS 'Return values of tasks that keep them, until they expire.';
