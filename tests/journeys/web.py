"""A web process that takes in calls of the Track API over real sockets, alone or beside workers, and a client that asks as a shop's server does."""

import base64
import json
import socket
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from qa.management.commands.up import web_command
from tests.journeys.deployment import ROOT, Deployment


class Web:
    """What `up` and a container start for the pages: gunicorn with `processes`, on the deployment's port."""

    def __init__(self, deployment: Deployment, *, processes: int = 1, threads: int = 8, **env: str) -> None:
        self.deployment, self.port = deployment, deployment.port
        pair = deployment.manage("create_api_key", "web").stdout.strip()
        self.authorization = "Basic " + base64.b64encode(pair.encode()).decode()
        self._command = web_command(f"127.0.0.1:{self.port}", threads=threads)
        self._env = {**deployment.env, "WEB_PROCESSES": str(processes), **env}
        self._log: Path = deployment.folder / "web.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Until it answers."""
        self.process = subprocess.Popen(
            self._command, cwd=ROOT, env=self._env, stdout=self._log.open("ab"), stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + 60
        while True:
            assert self.process.poll() is None and time.monotonic() < deadline, self._log.read_text()[-4000:]
            with closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(40)
            self.process = None

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """The bytes of a request that keeps its connection."""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {self.authorization}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def event(self, id: str, event_id: str, name: str = "purchase", **data: Any) -> bytes:
        """The request of one event."""
        body = json.dumps({"name": name, "id": event_id, "data": data}).encode()
        return self.request("POST", f"/api/v1/customers/{id}/events", body)


def answer(stream: Any) -> int:
    """Read one answer; its status. Raises ConnectionError where the other side went away before it had answered."""
    line = stream.readline()
    if not line:
        raise ConnectionError("no answer")
    status = int(line.split()[1])
    length = 0
    while (line := stream.readline()) not in (b"\r\n", b""):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    if len(stream.read(length)) < length:
        raise ConnectionError("half an answer")
    return status
