"""Each command parses, calls and prints; none decides anything.

What happens here. `mqueue` is `main.py`. What a command needs is imported when it runs, so that `mqueue --help` is
quick; `python -m mqueue.cli` does the same.

Who is authoritative. The broker's options are `broker/config.py`'s, the worker's `worker/program/options.py`'s; what
the commands ask of a broker goes through `mqueue.client`.

What failure does. An error of `mqueue.errors` is one line on stderr and an exit code: 1 failed, 2 wrong usage, 78 wrong
configuration; `mqueue wal` adds 65 (the log is damaged) and 75 (a broker uses it).

Which file to open:

    main.py         the group, and the commands that have no file of their own: broker, worker, enqueue, dlq, ...
    bench.py        `mqueue bench`
    client.py       what the commands that ask a broker share: which one, and how to print what it says
    extras.py       says what to install where a package is missing
    schedules.py    `mqueue schedules`
    types.py        types of options: a duration, a number, a name
    wal.py          `mqueue wal`
    workers.py      `mqueue workers`
"""
