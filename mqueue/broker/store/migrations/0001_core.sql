-- The durable truth of one shard. Times are microseconds since 1970 on the shard clock (they end in _us); the views show them as timestamps.

CREATE TABLE shard (                      -- one row: who leads, which life of the shard this is
  one          boolean PRIMARY KEY DEFAULT true CHECK (one),
  number       int     NOT NULL,
  shards       int     NOT NULL,          -- of the whole system, as the slot map knows it
  epoch        bigint  NOT NULL DEFAULT 0,
  term         bigint  NOT NULL DEFAULT 0,
  mode         text    NOT NULL DEFAULT 'recovering' CHECK (mode IN ('hot', 'recovering', 'cold')),
  run_id       text    NOT NULL DEFAULT '', -- of the Redis that holds this epoch
  timeline     int     NOT NULL DEFAULT 0,
  dirty_number bigint  NOT NULL DEFAULT 0, -- N: the last dirty entry of this epoch that was flushed
  clock_us     bigint  NOT NULL DEFAULT 0
);

CREATE TABLE slot (                       -- slot -> shard; kept in shard 0's database, 16,384 entries
  map int[] NOT NULL
);

CREATE TABLE broker (                     -- a broker is its WAL directory; its node number is part of every id it made, and its for good
  node          int         PRIMARY KEY CHECK (node BETWEEN 1 AND 1023),
  identity      uuid        NOT NULL UNIQUE,
  host          text        NOT NULL DEFAULT '',
  position      bigint      NOT NULL DEFAULT 0,  -- last sequence flushed, moved in the transaction that flushed it
  started       bigint      NOT NULL DEFAULT 0,  -- first sequence of its present life: what is below it and not on its disk never comes
  replayed      bigint      NOT NULL DEFAULT 0,  -- epoch it has confirmed
  seen_at       timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE topic (
  id         int  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  namespace  text NOT NULL,
  name       text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  enqueued   bigint NOT NULL DEFAULT 0,   -- the ledger: enqueued = acked + dead + expired + purged + cancelled + live
  acked      bigint NOT NULL DEFAULT 0,
  dead       bigint NOT NULL DEFAULT 0,
  expired    bigint NOT NULL DEFAULT 0,
  purged     bigint NOT NULL DEFAULT 0,
  cancelled  bigint NOT NULL DEFAULT 0,
  UNIQUE (namespace, name)
) WITH (fillfactor = 50);

CREATE TABLE message (
  id               bigint NOT NULL,
  topic_id         int    NOT NULL REFERENCES topic,
  priority         int    NOT NULL,
  rank             int    NOT NULL,
  deliver_after_us bigint NOT NULL,
  attempts         int    NOT NULL,
  max_retries      int    NOT NULL,
  version          int    NOT NULL,
  lease_ms         int    NOT NULL,
  origin_node      int    NOT NULL,
  origin_sequence  bigint NOT NULL,
  expires_at_us    bigint,
  error            text,
  created_at_us    bigint NOT NULL,
  payload          bytea  NOT NULL,
  metadata         json,                 -- as it was sent: jsonb would change numbers
  idempotency_key  text,
  CONSTRAINT message_pkey PRIMARY KEY (id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1);
ALTER TABLE message ALTER COLUMN payload SET STORAGE EXTERNAL;

-- the key: refill reads on from the frontier
CREATE INDEX message_key ON message (topic_id, priority, rank, deliver_after_us, id);
-- the time scan: what was not due when it came
CREATE INDEX message_due ON message (deliver_after_us, id) WHERE deliver_after_us > created_at_us;
-- the pruner
CREATE INDEX message_expiry ON message (expires_at_us, id) WHERE expires_at_us IS NOT NULL;

CREATE TABLE dead_letter (
  id               bigint NOT NULL,
  topic_id         int    NOT NULL REFERENCES topic,
  priority         int    NOT NULL,
  rank             int    NOT NULL,
  deliver_after_us bigint NOT NULL,
  attempts         int    NOT NULL,
  max_retries      int    NOT NULL,
  version          int    NOT NULL,
  lease_ms         int    NOT NULL,
  origin_node      int    NOT NULL,
  origin_sequence  bigint NOT NULL,
  expires_at_us    bigint,
  error            text,
  created_at_us    bigint NOT NULL,
  payload          bytea  NOT NULL,
  metadata         json,                 -- as it was sent: jsonb would change numbers
  idempotency_key  text,
  died_at_us       bigint NOT NULL,
  CONSTRAINT dead_letter_pkey PRIMARY KEY (id)
);
CREATE INDEX dead_letter_topic ON dead_letter (topic_id, id);

CREATE TABLE idempotency (
  key_hash      bytea  PRIMARY KEY,
  body_hash     bytea  NOT NULL,
  id            bigint NOT NULL,
  expires_at_us bigint NOT NULL
);
CREATE INDEX idempotency_expiry ON idempotency (expires_at_us);

CREATE TABLE arrival (                    -- rows that came another way than through Redis: the leader places them
  id bigint PRIMARY KEY
);

CREATE TABLE orphan (                     -- outcomes replayed before the enqueue they end: they wait until its origin's position passes
  id              bigint PRIMARY KEY,
  kind            text   NOT NULL CHECK (kind IN ('ack', 'dead', 'nack')),
  version         int    NOT NULL,
  attempts        int    NOT NULL,
  due_us          bigint NOT NULL,
  origin_node     int    NOT NULL,
  origin_sequence bigint NOT NULL,
  error           text
);

-- ---- for people -------------------------------------------------------------------------------------------------------------

CREATE VIEW pending_messages AS
SELECT m.id, t.namespace, t.name AS topic, m.priority,
       to_timestamp(m.deliver_after_us / 1e6) AS deliver_after,
       m.attempts, m.max_retries, m.error AS last_error,
       to_timestamp(m.created_at_us / 1e6) AS created_at,
       to_timestamp(m.expires_at_us / 1e6) AS expires_at,
       CASE WHEN octet_length(m.payload) <= 200 THEN encode(m.payload, 'escape') ELSE octet_length(m.payload) || ' bytes' END AS payload,
       m.metadata, m.idempotency_key
FROM message m JOIN topic t ON t.id = m.topic_id;

CREATE VIEW dead_letters AS
SELECT d.id, t.namespace, t.name AS topic, d.priority, d.attempts, d.error,
       to_timestamp(d.died_at_us / 1e6) AS died_at,
       to_timestamp(d.created_at_us / 1e6) AS created_at,
       CASE WHEN octet_length(d.payload) <= 200 THEN encode(d.payload, 'escape') ELSE octet_length(d.payload) || ' bytes' END AS payload,
       d.metadata, d.idempotency_key
FROM dead_letter d JOIN topic t ON t.id = d.topic_id;

CREATE VIEW topic_stats AS
SELECT t.namespace, t.name AS topic,
       (SELECT count(*) FROM message m WHERE m.topic_id = t.id) AS pending,
       (SELECT count(*) FROM dead_letter d WHERE d.topic_id = t.id) AS dead_letters,
       t.enqueued, t.acked, t.dead, t.expired, t.purged, t.cancelled, t.created_at
FROM topic t;

COMMENT ON VIEW pending_messages IS 'Messages PostgreSQL holds. Those acked within the flush age never appear; those leased now still do.';
COMMENT ON VIEW dead_letters IS 'Messages whose retries ended, by topic.';
COMMENT ON VIEW topic_stats IS 'Per topic: what is pending here, and the ledger since the beginning.';
