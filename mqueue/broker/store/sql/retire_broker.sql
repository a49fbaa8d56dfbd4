-- retire_broker: frees a node number, once all of its log is flushed; outcomes that wait for its enqueues wait in vain. Index: broker_identity_key.
WITH freed AS (
  UPDATE broker SET identity = NULL, host = '', seen_at = to_timestamp(0), id_floor_ms = greatest(id_floor_ms, %(id_floor_ms)s)
  WHERE identity = %(identity)s AND position >= %(last)s RETURNING node),
waited AS (
  DELETE FROM orphan o USING freed f WHERE o.origin_node = f.node)
SELECT node FROM freed
