-- copy_message: rows PostgreSQL never had, straight in (mqueue/broker/format/record.py lays out the fields).
-- moves: nothing
COPY message (id, topic_id, priority, rank, deliver_after_us, attempts, max_retries, version, lease_ms, origin_node, origin_sequence,
              expires_at_us, error, created_at_us, payload, metadata, idempotency_key, unique_key) FROM STDIN (FORMAT BINARY)
