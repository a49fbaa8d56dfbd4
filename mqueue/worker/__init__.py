"""Run tasks. The life of a job, and the module that has each part of it:

    app         @task marks a function and gives it a name                                         producer: the broker it is sent to
    task        checks a call of it, and makes a message of that                                   codec: calls as bytes
    fetcher     asks the broker for as many messages as there are free slots, and settles what ended, in the same request
    program     `mqueue worker`: modules → apps, signals
    fleet       `--processes N`: the parent; member is one of the N                                changes: for `--reload`
    runtime     message → task → job                                                               recycling: when it has run for long enough
    batch       many messages as one job
    executor    runs it: on the event loop, in a thread, in a process                              handler: the one function that does
    processes   the pool, its limits; child is the other side, channel what they speak             job: what a handler may ask
    middleware  what an app puts around enqueues and handlers
    heartbeat   renews its lease meanwhile, from a thread of its own                               watchdog: tells of a blocked loop
    reach       can it claim work? status: what it tells of itself                                 probe: shows that over HTTP
    handle      what the enqueuer may ask: how it is, what it returned
    presence    tells the broker who works here, at what, and how far it is
    outcome     what became of it → ack, nack, release or bury                                     retry: a task's policy

There is no queue in the worker: what it holds, it runs.
"""
