"""What a server counts, in Prometheus' form; of several workers together."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # the client's own: where the counts of several processes lie
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counts of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        own = self._registry
        self._requests = Counter("radio_dspy_requests", "Requests answered.", ["route", "status"], registry=own)
        self._seconds = Histogram(
            "radio_dspy_request_seconds", "Time to the end of the answer.", ["route"], buckets=_SECONDS, registry=own
        )
        self._passes = Histogram(
            "radio_dspy_pass_requests", "Requests scored in one pass.", buckets=_SIZES, registry=own
        )
        self._texts = Counter("radio_dspy_texts", "Texts scored.", registry=own)
        self.reloads = Counter("radio_dspy_reloads", "Programs taken over while running.", registry=own)
        self.waiting = Gauge("radio_dspy_waiting", "Requests under way.", registry=own, multiprocess_mode="livesum")

    def scored(self, requests: int, texts: int) -> None:
        """Count a pass."""
        self._passes.observe(requests)
        self._texts.inc(texts)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Everything, in Prometheus' text form."""
        if SHARED_FOLDER not in os.environ:
            return generate_latest(self._registry)
        shared = CollectorRegistry()
        MultiProcessCollector(shared)
        return generate_latest(shared)


class Measured:
    """Counts the requests of an application."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on, and count it when it has ended."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with self._metrics.waiting.track_inprogress():
                await self._app(scope, receive, watched)
        finally:
            # Only routes that there are: a name for every path that anyone tries would fill the memory.
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.answered(route, status, time.perf_counter() - started)
