"""What goes on beside the polls while jobs run: leases, cancellations, schedules, and who works here.

What happens here. A thread renews the leases of the jobs that this worker holds, and tells of those that are lost or
have run for too long. Another reports to the broker who works here and at what. A third looks whether the event loop
turns. On the loop itself a call stays open to hear what was cancelled, and periodic tasks are declared once.

Who is authoritative. The broker is: a lease is lost when it says so, never because a clock here does. A job that has
run for as long as it may is this worker's own decision: its lease is renewed no more. These watchers only tell; what it
makes of a job is decided in `mqueue.worker.running.ending`.

What failure does. Threads have clients and connections of their own, so a handler that blocks the loop costs no lease
and no report. Each of them tries on for ever: leases every half second, the others after pauses. While leases cannot be
renewed jobs run on; they come again elsewhere if the leases end first. What nobody hears of a cancellation comes with
the next call. Nothing depends on reports.

Which file to open:

    heartbeat.py      renews leases, from a thread; lets go of what runs too long
    cancellations.py  hears which jobs somebody has cancelled
    presence.py       tells the broker who works here, and at what
    watchdog.py       tells when the event loop is blocked, and by what
    declarer.py       tells the broker when periodic tasks run
"""
