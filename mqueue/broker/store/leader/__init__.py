"""What the leader of a shard does in PostgreSQL, a store for each of its subjects, all on one session.

What happens here. The session is one connection: it holds the advisory lock that elects, and begins every transaction
of a daemon by locking the shard row on epoch and term. Each method here is one such transaction, or one statement. A
daemon decides and calls; what it must decide within a transaction it passes in as a function.

Who is authoritative. The shard row: where another epoch or term stands there, a transaction raises Deposed and has
written nothing.

What failure does. StoreLost means that no answer came, and what was asked may have happened; so every transaction may
be repeated, or its effect can be read by the next leader.

Which file to open:

    store.py     LeaderStore: election, epochs, long leases; from here to the other stores
    session.py   the connection, its fence, and what its errors become
    pages.py     rows that are read for Redis, and arrivals
    flush.py     what a flush writes
    prune.py     what is deleted because its time is over
    ticks.py     schedules that are due become messages
    cold.py      clock, leases and TTLs of a shard without Redis
"""
