"""One job at a time: its handler is run, and it is decided how the job ends.

What happens here. The executor runs an `async def` on the worker's loop, a `def` in a thread, a task with
`executor="process"` in a process of a pool; a batch is one job with many messages. What a handler returns or raises
becomes an outcome where it ran, and that is told on the loop, once for each job. Meanwhile a job may be interrupted:
its lease is lost, somebody cancels it, it has run for too long, the worker stops. An interrupt marks the job, and tells
its handler where that can hear it. What is interrupted before its handler began does not begin.

Who is authoritative. `ending.py` is, for what is settled: from the outcome by the handler and the interrupts of the
job, in one place, on the loop. The loop alone marks jobs; threads only read the marks. Whether a settle still counts,
the broker decides by its receipt.

What failure does. Whatever a handler raises, an exit too, ends that job and nothing else. A process that dies, or takes
more time or memory than it may, ends the one job that ran in it, and the next job gets a new process. A thread cannot
be stopped: its job may be given up, its slot is free then, and what it says later is dropped.

Which file to open:

    executor.py     where each handler runs, and that its end is told once
    handler.py      one call of a handler, with its middleware; what it returns is checked
    processes.py    the pool of processes, seen from the worker
    child.py        what runs in such a process
    batch.py        batches: gathered into one job, and a verdict for each item
    interrupts.py   jobs are marked with what interrupts them, and their handlers told
    ending.py       how a job ends, by its interrupts and its handler: the table
    outcome.py      what a handler's result or exception is by itself
"""
