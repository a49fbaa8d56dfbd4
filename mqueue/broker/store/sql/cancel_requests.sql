-- cancel_requests: those of some namespaces beyond a number. Index: cancel_request_number.
SELECT number, id FROM cancel_request WHERE number > %(after)s AND namespace = ANY(%(namespaces)s) ORDER BY number LIMIT %(limit)s
