"""Brokers on a virtual clock, over real scripts and real SQL, with disks that forget and stores that fail: seeded and
replayable.

    python -m tests.simulation --seeds 1000        thousands of runs
    python -m tests.simulation --seed 17 --trace   one of them, told
    python -m tests.simulation --mutations         what it finds when a rule is taken away

What is real: everything of the broker but HTTP: engine, committer, membership, leader and its daemons, the log, the
identity, the scripts in a Valkey, the SQL in a PostgreSQL. What is not: time (loop.py), the disk below the log
(disk.py), the way to the stores (link.py, cache.py, store.py). A call of a store is one moment; before and after it
anything may happen. What must hold: checker.py, history.py, and the end of world.py.
"""
