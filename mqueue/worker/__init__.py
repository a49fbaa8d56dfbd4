"""Run tasks: the worker's side of the system.

What happens here. A user marks a function with `@task` (`tasks/`); a call of it becomes a message. A worker asks the
broker for as many messages as it has free slots (`polling/`), turns each into a job, runs it on the event loop, in a
thread or in a process (`running/`), and settles it with the next request. Meanwhile threads of their own renew the
leases and watch over the rest (`watching/`). There is no queue in the worker: what it holds, it runs.

Who is authoritative. The broker is, for everything: a worker has a message only while its lease runs. A settle whose
receipt is no longer current changes nothing.

What failure does. A worker that dies lets its leases end, and its messages come again with an attempt counted. A
worker that loses the broker goes on with what runs, fetches nothing, and settles when the broker is back. A worker
that stops hands back what has not begun, and spends no attempt on it.

Which file to open:

    arguments/      a call as bytes, checked against the function's signature
    tasks/          what a user writes: apps, tasks, options, handles, retry policies, middleware, the running job
    running/        one job: executor, handler, processes, batches, interrupts, and how it ends
    polling/        what is asked of the broker, and when: fetches, settles, lanes, pauses; is it within reach?
    watching/       beside the polls: leases renewed, presence told, cancellations heard, a blocked loop noticed
    program/        `mqueue worker`: one process or a fleet, reload, the probe
    runtime.py      the worker: puts its parts together; message -> job -> settle
    intake.py       a message as a job, or why it is turned away
    sources.py      which topics a worker takes messages from
    stopping.py     how a worker stops without losing a job, and how fast
    recycling.py    when a worker has run for long enough
    status.py       what a worker tells of itself, as pages
    channel.py      what a process and its parent say to each other
    memory.py       how much memory a process holds
    traces.py       errors as texts of a bounded length
"""
