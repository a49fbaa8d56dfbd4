"""The systems that mqueue is compared with, and mqueue itself: each is one small module behind one interface.

What happens here. A module `with_NAME.py` has the producer's side and the worker's of one system, with the settings
that its own documentation names for production. It runs in the interpreter that has the system's packages, which is not
ours: nothing of `mqueue` is imported here but in `with_mqueue*.py`. All of them run the same job with the same payload.

Which file to open:

    peer.py              the interface, and what each module is told
    job.py               the job: it notes that it ran, and how long it was on its way
    produce.py           the program that enqueues; `benchmarks/comparison` tells it what, and reads how many
    requirements.txt     the pinned packages of all peers

    with_mqueue.py, with_mqueue_sync.py, with_mqueue_batch.py        mqueue through its three clients
    with_celery.py, with_dramatiq.py, with_rq.py, with_taskiq.py, with_saq.py, with_huey.py        on Redis
    with_procrastinate.py, with_pgqueuer.py, with_pgmq.py        on PostgreSQL
    with_skip_locked.py  on PostgreSQL, a table and no library: what one writes by hand
"""
