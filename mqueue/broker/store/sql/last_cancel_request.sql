-- last_cancel_request: the greatest number, 0 for none. Index: cancel_request_number.
SELECT coalesce(max(number), 0) FROM cancel_request
