"""This backend runs Django's own tasks (`django.tasks`, Django 6) on mqueue.

    TASKS = {"default": {"BACKEND": "mqueue.contrib.django.MQueueBackend"}}

What happens here. An enqueue is a message, sent when its transaction has committed. `mqueue worker
mqueue.contrib.django.worker` runs the tasks of the installed apps.

Who is authoritative. Django's settings are, for the options; the broker is, for the state of a task. A message names a
task; only what the worker's own modules define is run, and no message makes a worker import anything.

What failure does. Wrong options raise when the backend is made. An exception of a task is a nack, as everywhere.

Which file to open:

    backend.py      enqueues: what Django says, in mqueue's words
    options.py      its OPTIONS, checked
    outbox.py       what a transaction enqueues
    known.py        Django's tasks of this process, by path
    runner.py       the tasks that a worker runs: one for each queue and kind of function
    connections.py  whose database connections a job uses
    results.py      Django's results
    worker.py       the module that `mqueue worker` is given
"""

try:
    import django.tasks  # noqa: F401
except ImportError as error:
    raise ImportError("mqueue.contrib.django needs Django 6 or newer, and Python 3.12: pip install 'mqueue[django]'") from error

from mqueue.contrib.django.backend import MQueueBackend

__all__ = ["MQueueBackend"]
