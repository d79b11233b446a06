"""The Celery application. Tasks live in each floor's tasks.py and are named `<floor>.<verb>`."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("rollcall")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.conf.beat_schedule = {
    "sweep": {"task": "audiences.sweep", "schedule": 1.0, "options": {"queue": "urgent", "expires": 5}}
}
