"""Run tasks. The life of a job, and the module that has each part of it:

    app         @task marks a function and gives it a name                                         producer: the broker it is sent to
    task        checks a call of it, and makes a message of that                                   codec: calls as bytes
    fetcher     asks the broker for as many messages as there are free slots, and settles what ended, in the same request
    program     `mqueue worker`: modules → apps, signals
    runtime     message → task → job
    executor    runs it: on the event loop, in a thread, in a process                              handler: the one function that does
    processes   the pool, its limits; child is the other side, channel what they speak             job: what a handler may ask
    middleware  what an app puts around enqueues and handlers
    heartbeat   renews its lease meanwhile, from a thread of its own                               watchdog: tells of a blocked loop
    handle      what the enqueuer may ask: how it is, what it returned
    presence    tells the broker who works here, at what, and how far it is
    outcome     what became of it → ack, nack, release or bury                                     retry: a task's policy

There is no queue in the worker: what it holds, it runs.
"""
