-- create_staging: makes a table, once per connection, for rows that PostgreSQL may have already.
CREATE TEMP TABLE IF NOT EXISTS staging (LIKE message INCLUDING DEFAULTS) ON COMMIT DELETE ROWS
