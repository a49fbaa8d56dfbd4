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
    }
}
