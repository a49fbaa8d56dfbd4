"""Define tasks and queue their calls: what a user of mqueue writes.

What happens here. `@app.task(...)` checks the options, and makes a task of the function: its name, its options, the
shape of its arguments, perhaps a schedule. `task.enqueue(...)` packs a call as bytes, puts it into a copy of the task's
message, and lets the app send it, with middleware around it. The answer is an id, and the caller gets a handle on it.
On the worker's side a message that has come is a job, and its handler may ask for it by `current()`.

Who is authoritative. For the options their declarations in `options.py` are: what is accepted, checked and kept, the
types, the help and the tables of docs/worker.md all come from there. For a task's name its app is: a second function of
that name is refused, unless it is the first one, defined again (`redefinition.py`). For a queued call the broker is: a
handle keeps nothing but the id, and asks anew each time.

What failure does. What cannot be is refused where it is written: a wrong option at the decorator or at `options()`, a
wrong argument at `enqueue`, both with the name of what is wrong, and nothing is sent. A call that the broker does not
answer is sent again, under a key, until the client's time is over; then `enqueue` raises. How a job ends when its
handler raises is said by the exceptions of `signals.py` and the policy of `retry.py`, and decided in `running/`.

Which file to open:

    app.py            an app: its tasks, `@app.task`, `enqueue_many`
    task.py           a task: the function, its options, `enqueue`; a call with other options
    options.py        every option of tasks and calls, each with its type, default, check and help: add one here
    checks.py         what one value may be: numbers, seconds, names, texts
    reference.py      help and tables made from the declarations of options
    names.py          the name of a task that is given none
    redefinition.py   may a task take a name that is taken? It may if it is the same task, defined again
    periodic.py       `cron=` and `every=`: the schedule that a worker declares
    retry.py          a policy: what is tried again, and when
    signals.py        the exceptions by which a handler says how its job ends, and those of a process that is gone
    handle.py         a handle on a queued call: status, result, cancel
    producer.py       the clients that enqueue: one for the process, one for each event loop
    middleware.py     what an app puts around its enqueues and its handlers
    job.py            the running job, and what a handler may ask about it
"""
