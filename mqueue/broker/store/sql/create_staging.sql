-- create_staging: once per connection: where rows wait that PostgreSQL may have already.
CREATE TEMP TABLE IF NOT EXISTS staging (LIKE message INCLUDING DEFAULTS) ON COMMIT DELETE ROWS
