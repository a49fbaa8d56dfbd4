"""`make demo`: a broker with its own stores, one worker and 10,000 jobs in one terminal; then everything is gone again.

processes.py  the broker and the worker, in a temporary folder
tasks.py      what the worker runs
load.py       which jobs are queued
progress.py   the line that moves while they run
report.py     what came of them, counted from what broker and worker say
__main__.py   the story
"""
