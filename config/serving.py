"""How gunicorn serves the pages, for `manage.py up` and a container alike: `gunicorn --config config/serving.py`.

One process: DuckDB's memory and the leaf cache are per process, and threads are enough for two cores. More cores: more processes
(WEB_PROCESSES), each with its own.
"""

import logging
import os
import sys
from pathlib import Path
from typing import Any

from gunicorn.glogging import Logger

from config.logs import Discreet, FormOnly, formatter

wsgi_app = "config.wsgi:application"
bind = f"{os.environ.get('BIND', '127.0.0.1')}:{os.environ.get('PORT', '8000')}"
workers = int(os.environ.get("WEB_PROCESSES", "1"))
worker_class = "gthread"
threads = int(os.environ.get("WEB_THREADS", "8"))
timeout = 60
graceful_timeout = 20  # a stop is over within 30 seconds, whatever a request waits for
keepalive = 5
loglevel = "warning"
control_socket_disable = True
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 (gunicorn's heartbeat file, not ours)


class logger_class(Logger):
    """Its messages hold addresses, which may hold a person's: they are written as all our lines are, without them."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(formatter(json=os.environ.get("LOG_JSON", "").lower() in ("1", "true", "on", "yes")))
        handler.addFilter(Discreet())
        self.error_log.handlers = [handler]
        self.error_log.filters = [FormOnly()]
        self.error_log.propagate = False
