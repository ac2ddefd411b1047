"""A connection: how long and how large the head of a request may be, and what is told of one that cannot be read."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_HEAD = 65536  # bytes of a request's line and headers
_LINGER = 1.0  # seconds in which a client that is still sending can read why it was refused


class Connection(HttpToolsProtocol):
    """uvicorn's, which itself waits without end for a head, however large.

    Args:
        time_limit: Seconds that a head may take to arrive.
    """

    def __init__(self, *args: Any, time_limit: float, **named: Any) -> None:
        super().__init__(*args, **named)
        self._seconds = time_limit
        self._late: asyncio.TimerHandle | None = None  # runs while a head is awaited
        self._size = 0
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._end_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, unless the head is too large."""
        if self._refused:
            return
        if self._late is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()
        self._size += len(data)
        super().data_received(data)
        if self._late is not None and self._size > _HEAD:
            self._refuse(431, f"the request's line and headers have more than {_HEAD} bytes: send less.")

    def on_headers_complete(self) -> None:
        """Hand the request on; its body is the guard's."""
        self._end_waiting()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Tell in JSON, as all refusals are told."""
        self._refuse(400, "this is no HTTP request that can be read.")

    def _await_head(self) -> None:
        self._size = 0
        reason = f"time_limit: the request's headers took more than {self._seconds:g} seconds to arrive."
        self._late = self.loop.call_later(self._seconds, self._refuse, 408, reason)

    def _end_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _refuse(self, status: int, reason: str) -> None:
        self._end_waiting()
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        body = json.dumps({"detail": reason}).encode()
        head = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "content-type: application/json", "connection: close"]
        self.transport.write("\r\n".join([*head, f"content-length: {len(body)}", "", ""]).encode() + body)
        self.loop.call_later(_LINGER, self.transport.close)
