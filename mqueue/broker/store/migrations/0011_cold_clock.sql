-- What is enqueued past Redis is stamped from here: each number is later than all that were due when it was drawn, whichever broker draws it.
-- A sequence is outside of transactions: nobody waits for another, and none goes back.

CREATE SEQUENCE cold_clock MINVALUE 0 START 0;
COMMENT ON SEQUENCE cold_clock IS 'What is due on the cold path lies at or below it. The leader sets it on with each tick.';
