"""Django's own tasks (`django.tasks`, Django 6) on mqueue: `TASKS = {"default": {"BACKEND":
"mqueue.contrib.django.MQueueBackend"}}`.

backend.py      enqueues: what Django says, in our words
options.py      its OPTIONS
outbox.py       what a transaction enqueues
known.py        Django's tasks, by path
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
