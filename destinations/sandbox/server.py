"""The sandbox as a web server: one process, a thread for each call, and calls that are applied late. No platform's ways here."""

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from destinations.sandbox.control_api import ControlApi
from destinations.sandbox.google import Google
from destinations.sandbox.meta import Meta
from destinations.sandbox.openlist import OpenList
from destinations.sandbox.pages import Pages
from destinations.sandbox.store import Store
from destinations.sandbox.web import Drop, Request, Response, Room, answer
from destinations.sandbox.webhook import Webhook

MOST_BYTES = 64 * 1024 * 1024


class App:
    """The WSGI application over one store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.rooms: list[Room] = [
            Meta(store),
            Google(store),
            OpenList(store),
            Webhook(store),
            ControlApi(store),
            Pages(store),
        ]

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if length > MOST_BYTES:
            response = answer({"error": "too large"}, 413)
        else:
            try:
                response = self.handle(_request(environ, environ["wsgi.input"].read(length)))
            except Drop:
                environ["sandbox.socket"].shutdown(socket.SHUT_RDWR)
                raise ConnectionAbortedError from None  # wsgiref takes this for a client that left, and is silent
        status = f"{response.status} {HTTPStatus(response.status).phrase}"
        start_response(status, [*response.headers, ("Content-Length", str(len(response.body)))])
        return [response.body]

    def handle(self, request: Request) -> Response:
        for room in self.rooms:
            if room.handles(request.path):
                return room.handle(request)
        return answer({"error": "there is nothing here"}, 404)

    def apply_late(self) -> None:
        """Send the late calls that are due to where they were going."""
        for text in self.store.journal.take_late():
            self.handle(Request.thawed(text))


def serve(host: str, port: int, path: Path, *, say: Callable[[str], None]) -> None:
    """Serve until the process ends. Port 0 takes a free one; `say` is told the address once it answers."""
    app = App(Store(path))
    server = _Server((host, port), _Handler)
    server.set_app(app)
    threading.Thread(target=_late_calls, args=(app,), daemon=True, name="late-calls").start()
    say(f"http://{host}:{server.server_port}")
    server.serve_forever()


def _late_calls(app: App) -> None:
    while True:
        app.apply_late()
        time.sleep(0.05)


def _request(environ: dict[str, Any], body: bytes) -> Request:
    headers = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
    headers["content-type"] = environ.get("CONTENT_TYPE", "")
    query = environ.get("QUERY_STRING", "")
    target = environ["sandbox.path"] + (f"?{query}" if query else "")
    return Request(environ["REQUEST_METHOD"], target, headers, body)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 256

    def server_bind(self) -> None:
        # WSGIServer asks the resolver for its own name here, which can take seconds where there is no network.
        super(WSGIServer, self).server_bind()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(WSGIRequestHandler):
    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        environ["sandbox.socket"] = self.connection
        environ["sandbox.path"] = self.path.partition("?")[0]  # still quoted
        return environ

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: targets may hold what nobody should log. The call log is the sandbox's own."""
