-- What a broker has seen of its own position: a server that forgets commits, its timeline as it was, is found out by it.

ALTER TABLE broker ADD COLUMN known bigint NOT NULL DEFAULT 0;
