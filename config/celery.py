"""The Celery application. Tasks live in each floor's tasks.py and are named `<floor>.<verb>`."""

import os
import warnings

from celery import Celery
from celery.exceptions import SecurityWarning

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

# It warns of pickled tasks under root, which in a container is the usual user; ours are JSON and nothing else is taken.
warnings.filterwarnings("ignore", category=SecurityWarning)
app = Celery("rollcall")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.conf.beat_schedule = {
    "sweep": {"task": "audiences.sweep", "schedule": 1.0, "options": {"queue": "urgent", "expires": 5}}
}
