"""Run tasks. The life of a job, and the module that has each part of it:

    registry    @task marks a function and gives it a name; `enqueue` sends a call of it           codec: calls as bytes
    fetcher     asks the broker for as many messages as there are free slots, and settles what ended, in the same request
    runtime     message → task → job
    executor    runs it, on the event loop or in a thread                                         job: what a handler may ask
    heartbeat   renews its lease meanwhile, from a thread of its own
    outcome     what became of it → ack, nack, release or bury

There is no queue in the worker: what it holds, it runs.
"""
