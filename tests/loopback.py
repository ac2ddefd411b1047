"""A real HTTP server on a loopback port, which the stub servers of the tests are made of."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, TypeVar

Own = TypeVar("Own", bound="Loopback")


class Loopback:
    """Serves for the length of a ``with`` block.

    Attributes:
        handler: What answers a request; subclasses name theirs.
        url: ``http://127.0.0.1:PORT``, without a path.
        closing: Set when the block ends: whoever keeps a caller waiting stops.
    """

    handler: ClassVar[type[Handler]]
    url: str

    def __init__(self) -> None:
        self.closing = threading.Event()

    def open(self, handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
        """Listen; a subclass may do it in its own way."""
        return ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self: Own) -> Own:
        self._server = self.open(type("Handler", (self.handler,), {"stub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    """Reads and sends bodies; ``stub`` is the server."""

    protocol_version = "HTTP/1.1"
    stub: Any

    def body(self) -> bytes:
        """What was sent."""
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def send_json(self, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
        """Answer with JSON."""
        self.send_data(status, json.dumps(value).encode(), {"content-type": "application/json", **(headers or {})})

    def send_data(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        """Answer with bytes; a ``content-length`` among the headers is sent as it is."""
        self.send_response(status)
        for name, value in {"content-length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""
