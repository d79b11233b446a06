"""The WSGI door, for gunicorn."""

import atexit
import os

from django.core.signals import request_finished
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
application = get_wsgi_application()

from audiences import tallies  # noqa: E402 (tables are there once the application is)

request_finished.connect(tallies.flush_now_and_then)
atexit.register(tallies.flush)
