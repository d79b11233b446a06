"""Server mode as docker-compose.yml has it, without containers: each service's own command in its own environment, on PostgreSQL and Redis."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psycopg
import yaml

from tests.journeys.deployment import ROOT, Deployment, free_port

OURS = ("web", "worker-urgent", "worker", "beat")


class Redis:
    """A broker of its own, to be emptied, stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.port, self._folder = free_port(), folder
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [
            "redis-server",
            "--port",
            str(self.port),
            "--save",
            "",
            "--appendonly",
            "no",
            "--loglevel",
            "warning",
        ]
        self._process = subprocess.Popen(command, cwd=self._folder, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while self.ask("ping").strip() != "PONG":
            assert time.monotonic() < deadline, "redis-server did not start"
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def ask(self, *words: str) -> str:
        return subprocess.run(["redis-cli", "-p", str(self.port), *words], capture_output=True, text=True).stdout


class Services(Deployment):
    """`up` starts all of them as `docker compose up --wait` would: after migrating, and until each one's own health check passes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
        self.redis = Redis(folder / "redis")
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def up(self, *services: str, wait: float = 90, **env: str) -> None:  # type: ignore[override]
        if not self.redis._process:
            self.redis.start()
        self.migrate()
        for name in services or OURS:
            self.start(name, **env)
        deadline = time.monotonic() + wait
        for name in services or OURS:
            while not self.healthy(name):
                assert self.running[name].poll() is None, f"{name} ended:\n{self.log()}"
                assert time.monotonic() < deadline, f"{name} is not healthy after {wait} s:\n{self.log()}"
                time.sleep(0.3)

    def migrate(self) -> None:
        done = subprocess.run(
            self.command("migrate"), cwd=ROOT, env=self.environment("migrate"), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    def start(self, name: str, **env: str) -> None:
        environment = {**self.environment(name), **env}
        pulse = Path(environment["PULSE_FILE"])
        pulse.parent.mkdir(parents=True, exist_ok=True)
        pulse.unlink(missing_ok=True)
        self.running[name] = subprocess.Popen(
            self.command(name), cwd=ROOT, env=environment, start_new_session=True,
            stdout=self._log(), stderr=subprocess.STDOUT,
        )  # fmt: skip

    def command(self, name: str) -> list[str]:
        words = shlex.split(self.compose[name]["command"])
        if "--hostname" in " ".join(words):  # two deployments on one machine
            words = [word.replace("@%h", f"-{self.port}@%h") for word in words]
        return [str(Path(sys.executable).with_name(words[0])), *words[1:]]

    def environment(self, name: str) -> dict[str, str]:
        """The service's own, with this machine's addresses and folders in the place of the containers'."""
        own = {**self.compose[name]["environment"]}
        assert set(own) >= {"DATABASE_URL", "BROKER_URL", "LAKE_URL", "DATA_DIR", "UPLOAD_DIR", "PULSE_FILE"}
        moved = {key: self._here(name, str(value)) for key, value in own.items()}
        moved |= {
            "DATABASE_URL": self.env["DATABASE_URL"],
            "BROKER_URL": self.redis.url,
            "LAKE_URL": str(self.folder / "lake"),
            "BIND": "127.0.0.1" if own.get("BIND") == "0.0.0.0" else own.get("BIND", "127.0.0.1"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        return {**self.env, **moved}

    def _here(self, name: str, path: str) -> str:
        """A path of the container's, on this machine: /data is shared, /tmp each service's own."""
        if path.startswith("/tmp/"):
            return f"{self.folder}/tmp-{name}{path.removeprefix('/tmp')}"
        return f"{self.folder}{path.removeprefix('/data')}" if path.startswith("/data") else path

    def healthy(self, name: str) -> bool:
        """Whether the service's own health check passes."""
        kind, *words = self.compose[name]["healthcheck"]["test"]
        words = [w.replace(":8000/", f":{self.port}/").replace("/tmp/", f"{self.folder}/tmp-{name}/") for w in words]
        command = ["sh", "-c", words[0]] if kind == "CMD-SHELL" else [sys.executable, *words[1:]]
        return subprocess.run(command, capture_output=True).returncode == 0

    def manage(self, *words: str, check: bool = True, timeout: float = 300, **env: str):
        env = {"BROKER_URL": self.redis.url, "LAKE_URL": str(self.folder / "lake"), **env}
        return super().manage(*words, check=check, timeout=timeout, **env)

    def look_after(self) -> None:
        """Start again what has ended, as the restart policy of docker-compose.yml does."""
        for name, process in list(self.running.items()):
            if process.poll() is not None:
                assert self.compose[name]["restart"] == "unless-stopped"
                self.start(name)

    def stop_service(self, name: str) -> tuple[int, float]:
        """SIGTERM, as `docker compose stop` sends: the exit code, and how many seconds it took."""
        process, began = self.running.pop(name), time.monotonic()
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(60), time.monotonic() - began
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise AssertionError(f"{name} did not stop within a minute:\n{self.log()}") from None

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> int:
        """All at once, within the grace that docker-compose.yml gives them."""
        began = time.monotonic()
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
        codes = {name: process.wait(60) for name, process in self.running.items()}
        assert time.monotonic() - began < 30, f"they took {time.monotonic() - began:.0f} s"
        self.running.clear()
        return max(codes.values())

    def remove(self) -> None:
        for name in list(self.running):
            self.kill(name)
        self.redis.stop()
        super().remove()

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=10)

    def terminate_backends(self) -> int:
        """Every connection to this deployment's database is cut, as in a failover; how many."""
        with psycopg.connect(self._server_url, autocommit=True) as server:
            query = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s"
            row = server.execute(query, [self.database]).fetchone()
            return int(row[0]) if row else 0
