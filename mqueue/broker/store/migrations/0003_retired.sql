-- A node number can be freed. Its row stays: whoever gets the number goes on after all that was ever numbered under it.

ALTER TABLE broker ALTER COLUMN identity DROP NOT NULL;             -- null: nobody has it
ALTER TABLE broker ADD COLUMN id_floor_ms bigint NOT NULL DEFAULT 0; -- ids of this node below it (ms since 2024) may be in use
