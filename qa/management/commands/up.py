"""`manage.py up`: serve the pages and do the work, with everything it needs started and kept running."""

import socket
import sys
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from audiences.management.base import RollcallCommand
from qa.supervisor import MANAGE, Child, Supervisor


class Command(RollcallCommand):
    help = "Serve Rollcall on 127.0.0.1:PORT: a web process and a worker, kept running until you press Ctrl-C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--sandbox", action="store_true", help="also serve the sandbox ad platforms on SANDBOX_PORT"
        )
        parser.add_argument("--bind", default="127.0.0.1", help="address to listen on (127.0.0.1)")
        parser.add_argument("--web-threads", type=int, default=8)
        parser.add_argument("--worker-threads", type=int, default=6)

    def handle(self, *args: Any, **options: Any) -> None:
        bind, port = options["bind"], settings.PORT
        _check_free(bind, port, "PORT")
        children = [Child("web", web_command(f"{bind}:{port}", options["web_threads"]))]
        if settings.EMBEDDED:
            children.append(Child("worker", [*MANAGE, "work", "--threads", str(options["worker_threads"])]))
        else:
            celery = [sys.executable, "-m", "celery", "-A", "config"]
            for queues in ("urgent", "sync,compute,intake"):
                name = queues.partition(",")[0]
                children.append(
                    Child(
                        f"worker ({queues})",
                        [
                            *celery,
                            "--quiet",
                            "worker",
                            "--loglevel=WARNING",
                            "--without-gossip",
                            "--without-mingle",
                            "--without-heartbeat",
                            "--pool=threads",
                            f"--concurrency={options['worker_threads']}",
                            f"--queues={queues}",
                            f"--hostname={name}-{port}@%h",
                        ],
                    )
                )
            children.append(Child("beat", [*celery, "--quiet", "beat", "--loglevel=WARNING"]))
        if options["sandbox"]:
            _check_free("127.0.0.1", settings.SANDBOX_PORT, "SANDBOX_PORT")
            children.append(Child("sandbox", [*MANAGE, "sandbox", "--port", str(settings.SANDBOX_PORT)]))
        self.stdout.write(f"Rollcall is at {settings.PUBLIC_URL} — Ctrl-C stops it.")
        self.stdout.flush()
        sys.exit(Supervisor(children, say=self.stderr.write).run())


def web_command(bind: str, threads: int) -> list[str]:
    """Gunicorn, as config/serving.py has it."""
    return [
        sys.executable, "-m", "gunicorn", "--config", "config/serving.py", "--bind", bind, "--threads", str(threads)
    ]  # fmt: skip


def _check_free(address: str, port: int, variable: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            raise CommandError(
                f"Port {port} is in use. Stop what listens there, or choose another: {variable}={port + 1}"
            ) from None
