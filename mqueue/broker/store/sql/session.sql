-- session: what holds in a broker's session, whatever server, database or role say; by statement, since a pooler refuses it as an option of the
-- connection. Plans go by index, also on a table without statistics. A commit is on the disk when it is answered. A session that is idle stays:
-- one of them holds the lock that elects. The server notices a dead network, too, or a session that nobody is behind would keep its locks.
-- No index: no table.
SELECT set_config(name, setting, false) FROM (VALUES
  ('enable_seqscan', 'off'), ('enable_bitmapscan', 'off'), ('jit', 'off'),
  ('synchronous_commit', 'on'), ('idle_session_timeout', '0'), ('lock_timeout', '5000'),
  ('tcp_keepalives_idle', '10'), ('tcp_keepalives_interval', '5'), ('tcp_keepalives_count', '3'), ('tcp_user_timeout', '15000'),
  ('statement_timeout', %(statement_ms)s::text),
  ('idle_in_transaction_session_timeout', %(idle_ms)s::text)
) AS wanted (name, setting)
