-- Who works, and at what. Only shard 0's table is used. Unlogged: what is lost is told again within seconds.

CREATE UNLOGGED TABLE worker (
  name        text        NOT NULL,
  namespaces  text[]      NOT NULL,       -- of its topics; part of the key, so that nobody writes over another's
  progressing bigint[]    NOT NULL,       -- messages it runs that have told how far they are
  report      json        NOT NULL,       -- as it told
  seen_at     timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT worker_pkey PRIMARY KEY (name, namespaces)
);
COMMENT ON TABLE worker IS 'Workers, as the brokers last heard of them; one of which nothing was heard for 10 s is gone.';
