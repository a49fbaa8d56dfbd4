"""The benchmarks measure how fast mqueue is on this machine: `python -m benchmarks [NAME...]`.

Every number is of the whole: clients, broker, worker, Valkey and PostgreSQL share this machine, every enqueue is
fsynced before it is answered, every message goes over HTTP. Each benchmark has a fresh broker with stores of its own.

    enqueue.py  one call at a time, batches, many producers
    share.py    threads that enqueue one by one, sharing requests or not
    drain.py    one worker process emptying a queue
    cores.py    tasks that keep a processor busy, in one process and in several
    latency.py  from enqueue to the start of the job, idle
    backlog.py  a deep queue: the speed of fetches, the memory
    comparison/ mqueue and its peers, side by side: `python -m benchmarks peers`, or `make bench`
    peers/      the systems that are compared, a module each
    results/    what was measured, by date: the tables of the pages are made of it
    setting.py  the broker, client and worker of each; row.py a line of the result; tasks.py what the worker runs
"""
