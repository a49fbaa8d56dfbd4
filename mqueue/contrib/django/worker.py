"""This module is for `DJANGO_SETTINGS_MODULE=… mqueue worker mqueue.contrib.django.worker`: it sets Django up.

Tasks are found in `tasks.py` of the installed apps, and in what those import; name further modules after this one.
"""

import django
from django.tasks import task_backends
from django.utils.module_loading import autodiscover_modules

from mqueue.contrib.django.backend import MQueueBackend

django.setup()
autodiscover_modules("tasks")
globals().update({f"app_{backend.alias}": backend.app for backend in task_backends.all() if isinstance(backend, MQueueBackend)})
