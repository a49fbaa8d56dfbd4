"""`make demo` runs a broker with its own stores, one worker and 10,000 jobs in one terminal; then all is gone again.

What happens here. `__main__.py` tells the story; broker and worker are processes in a temporary folder
(`mqueue/launch.py`).

Who is authoritative. The worker's own notes and the broker's dead letters are: the report counts from both.

What failure does. The demo ends with an error and an exit code, and leaves no process behind.

Which file to open:

    tasks.py        what the worker runs
    load.py         which jobs are queued
    progress.py     the line that moves while they run
    report.py       what came of them
"""
