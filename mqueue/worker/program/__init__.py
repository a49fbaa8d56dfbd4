"""`mqueue worker`, the command: one worker in this process, or a fleet of them under it, and a probe.

What happens here. One process imports the modules, finds their apps and runs a worker until a signal comes. With
`--processes` or `--reload` a parent that runs no jobs keeps members running, each such a process with a worker of its
own, and hears from them over a socket how they are. The probe shows that to an orchestrator.

Who is authoritative. Signals are: the first one starts the grace, a second one ends it. In a fleet the parent alone
takes them and passes them on, so a member that gets the terminal's signal as well does not count it twice.

What failure does. A member that falls is started again, after a pause that grows while it keeps falling; one that ended
by itself at once. What keeps the first ones from starting ends the parent with that error; with `--reload` it waits for
the next change. A member whose parent is gone stops as on SIGTERM. A loop that is blocked hears no signal: a second one
ends that process from outside the loop, and its jobs come again when their leases end.

Which file to open:

    program.py    `mqueue worker`: one process or a fleet, and the probe beside it
    options.py    what the command was told, as a worker process gets it
    work.py       one worker in this process: modules, apps, signals, the exit
    fleet.py      the parent of several processes
    member.py     one process of a fleet
    changes.py    tells when the code has changed
    probe.py      `/live`, `/ready`, `/metrics` over HTTP
"""
