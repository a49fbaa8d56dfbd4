"""A test run has a real broker with its own PostgreSQL and Valkey, and each test a namespace.

What happens here. The first test that asks for it starts the broker; each test gets a namespace of its own, and workers
that run in this process.

Who is authoritative. The broker is: what a test sees went through the log and the stores.

What failure does. The broker ends with the test run, also where that is killed. What a test leaves is cleared, so that
its schedules do not tick on.

Which file to open:

    embedded.py     the broker, and a test's place at it
    here.py         a client that takes the test's namespace, whatever it is told
    apart.py        jobs in processes of their own
    clearing.py     what a test leaves, taken away
    leash.py        the broker ends with the run
    worker_logs.py  what workers log, for pytest to show
"""
