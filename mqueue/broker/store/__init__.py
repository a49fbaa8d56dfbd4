"""PostgreSQL: the durable truth of a shard. Only this package knows the SQL and the schema.

What happens here. Each statement is a file in `sql/`, whose header says what it does, which index serves it, and, where
it writes a message, which moves of the message's state it performs. What any broker asks goes through pools by kind of
work; what the leader does goes through a session of its own, fenced by epoch and term. A transaction is one method:
callers decide, and pass their decisions in as functions.

Who is authoritative. The row with the greater version. A row tells the truth of a message that has no record in Redis;
the shard row tells which epoch, mode and term count.

What failure does. StoreLost means that no answer came: what was asked may have happened. After several failures in a
row a circuit breaker refuses calls for a moment, all but the look at the shard row. The ledger of each topic moves in
the same transactions as its rows, so `mqueue verify` can tell whether anything was lost.

Which file to open:

    shard.py       what any broker asks: one method for each statement, and the pools
    seats.py       what it says of the shard, and of each broker in it
    readers.py     how much users may read at once
    leader/        what the leader does, on the session that holds its lock
    cold.py        what serves a shard without Redis: enqueue, fetch, settle, cancel, extend
    replay.py      the tail of a log, in one transaction
    schedules.py   how schedules are edited
    write.py       what flushes, replays and cold batches write in their transactions; the ledger
    aside.py       what PostgreSQL refuses as a row
    rows.py        rows as the records and bodies that Redis and the log know
    queries.py     loads the SQL
    migrate.py     brings a database to the present schema
    circuit.py     the circuit breaker
    verify.py      `mqueue verify`: does the ledger add up?
"""
