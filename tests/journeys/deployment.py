"""A whole Rollcall of its own: data folder, database, ports, processes. Killed and started again as a machine would be."""

import json
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import httpx
import psycopg

from tests import migrated

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Deployment:
    """Embedded, or on PostgreSQL and Redis where DATABASE_URL and BROKER_URL are set for the test session."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.sandbox_port = folder, free_port(), free_port()
        self.url, self.sandbox_url = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.sandbox_port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.env = {
            **os.environ,
            "DATA_DIR": str(folder),
            "PORT": str(self.port),
            "SANDBOX_PORT": str(self.sandbox_port),
            "PUBLIC_URL": self.url,
            "ALLOW_PRIVATE_DESTINATIONS": "1",
            "PYTHONUNBUFFERED": "1",
        }
        self._server_url = os.environ.get("DATABASE_URL", "")
        if self._server_url:
            self.database = f"rollcall_journey_{secrets.token_hex(4)}"
            with psycopg.connect(self._server_url, autocommit=True) as connection:
                connection.execute(f'CREATE DATABASE "{self.database}"')
            self.env["DATABASE_URL"] = self._server_url.rsplit("/", 1)[0] + "/" + self.database

    def migrate(self) -> None:
        """As `manage.py migrate` would leave it, in much less time."""
        migrated.fill(self.folder, self.env["DATABASE_URL"] if self._server_url else "")

    def manage(
        self, *words: str, check: bool = True, timeout: float = 300, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `manage.py WORDS` to its end. With check, a non-zero exit fails the test with what it printed."""
        done = subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=ROOT,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check:
            assert done.returncode == 0, (
                f"manage.py {' '.join(words)} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done

    def json(self, *words: str, **env: str):
        return json.loads(self.manage(*words, **env).stdout)

    def query(self, sql: str) -> list[tuple]:
        """Look into the database from outside, quickly enough to catch a moment. Empty while there is no such table yet."""
        try:
            if self._server_url:
                with psycopg.connect(self.env["DATABASE_URL"]) as connection:
                    return connection.execute(sql).fetchall()
            with closing(
                sqlite3.connect(f"file:{self.folder}/rollcall.sqlite3?mode=ro", uri=True, timeout=5)
            ) as connection:
                return connection.execute(sql).fetchall()
        except (sqlite3.OperationalError, psycopg.errors.UndefinedTable):
            return []

    def shell_json(self, script: str, mark: str, *, timeout: float = 120):
        """What a script run inside the installation prints as JSON behind `mark`."""
        done = subprocess.run(
            [sys.executable, "manage.py", "shell", "-v", "0"],
            input=script + "\n",
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith(f"{mark} ")]
        assert lines, f"{done.stdout}\n{done.stderr}"
        return json.loads(lines[-1].removeprefix(f"{mark} "))

    def launch(self, *words: str, **env: str) -> subprocess.Popen[bytes]:
        """Start `manage.py WORDS` in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "manage.py", *words],
            cwd=ROOT,
            env={**self.env, **env},
            start_new_session=True,
            stdout=self._log(),
            stderr=subprocess.STDOUT,
        )

    def up(self, *words: str, command: str = "up", wait: float = 40, **env: str) -> None:
        """Start everything and wait until the web process answers."""
        self.process = self.launch(command, *words, STOP_WITH_PARENT="1", **env)
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"up ended:\n{self.log()}"
            try:
                if httpx.get(f"{self.url}/health/live").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError(f"no answer within {wait} s:\n{self.log()}")

    def kill_everything(self) -> None:
        """SIGKILL to the supervisor and each process below it, as a power cut would."""
        assert self.process
        for pid in [*_descendants(self.process.pid), self.process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()
        self.process = None

    def stop(self) -> int:
        """SIGTERM, as a deploy would; the exit code."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(40)
        self.process = None
        return code

    def remove(self) -> None:
        if self.process:
            self.kill_everything()
        if self._server_url:
            with psycopg.connect(self._server_url, autocommit=True) as connection:
                connection.execute(f'DROP DATABASE IF EXISTS "{self.database}" WITH (FORCE)')

    def log(self) -> str:
        return (self.folder / "processes.log").read_text(errors="replace")[-8000:]

    def _log(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        return (self.folder / "processes.log").open("ab")


def _descendants(pid: int) -> list[int]:
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [*_descendants(int(child)), int(child)]
    return found
