-- safety: does the server sync what it commits, and write whole pages? No index: no table.
SELECT current_setting('fsync')::bool, current_setting('full_page_writes')::bool
