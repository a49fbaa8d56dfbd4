"""Settings of the tests' project."""

import os

SECRET_KEY = "only for tests"
INSTALLED_APPS = ["shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["SHOP_DATABASE"], "OPTIONS": {"timeout": 20}}}
USE_TZ = True
TASKS = {
    "default": {
        "BACKEND": "mqueue.contrib.django.MQueueBackend",
        "QUEUES": ["default", "emails"],
        "OPTIONS": {"NAMESPACE": "django", "MAX_RETRIES": 1},
    },
    "low": {
        "BACKEND": "mqueue.contrib.django.MQueueBackend",
        "QUEUES": ["slow"],
        "OPTIONS": {"NAMESPACE": "django-low", "MAX_RETRIES": 0},
    },
    "immediate": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"},
}
