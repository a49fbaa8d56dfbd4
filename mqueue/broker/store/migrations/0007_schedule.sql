-- Periodic tasks: each in the database of its topic's shard. Times here are wall clock, µs since 1970 (a day is one for people).

CREATE TABLE schedule (
  namespace   text    NOT NULL,
  name        text    NOT NULL,
  topic       text    NOT NULL,
  cron        text,                       -- in timezone; or
  timezone    text    NOT NULL,
  every_us    bigint  NOT NULL,           -- from anchor_us on; 0: it is cron
  anchor_us   bigint  NOT NULL,
  catch_up    text    NOT NULL CHECK (catch_up IN ('skip', 'one', 'all')),
  payload     bytea   NOT NULL,           -- of its messages, as what follows
  metadata    json,
  priority    int     NOT NULL,
  max_retries int,                        -- null: the broker's default
  lease_ms    int,
  ttl_us      bigint,
  paused      boolean NOT NULL DEFAULT false,
  next_at_us  bigint,                     -- the first tick nobody has decided on; null: there is no other
  last_at_us  bigint,                     -- the last one enqueued
  declared    bytea,                      -- hash of what code declared last: an edit stays until that changes
  CONSTRAINT schedule_pkey PRIMARY KEY (namespace, name),
  CHECK ((cron IS NULL) = (every_us > 0))
);
-- the scheduler: what is due
CREATE INDEX schedule_due ON schedule (next_at_us) WHERE NOT paused;

CREATE VIEW schedules AS
SELECT namespace, name, topic, cron, timezone, nullif(every_us, 0) / 1e6 AS every_s, catch_up, paused,
       to_timestamp(next_at_us / 1e6) AS next_at, to_timestamp(last_at_us / 1e6) AS last_at
FROM schedule;
COMMENT ON VIEW schedules IS 'Periodic tasks: when each is next due.';
