"""A server of ours in a thread: real requests over loopback, and the same models in reach of the test."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from radio_dspy.serving.app import create_app
from radio_dspy.serving.running import configured
from radio_dspy.serving.service import Service, Source, open_service
from radio_dspy.serving.settings import ServerSettings


@dataclass(frozen=True)
class Running:
    """A running server.

    Attributes:
        url: Its address, without a path.
        service: What its routes ask.
    """

    url: str
    service: Service


@contextlib.contextmanager
def serving(program: Path, retriever: Any, lm: Any = None, **settings: Any) -> Iterator[Running]:
    """Serve a saved program for the length of the block, on a free port."""
    source = Source(program, lambda: retriever, lambda: contextlib.nullcontext(lm))
    with open_service(source, ServerSettings(**settings)) as service:
        config = configured(create_app(service), service.settings)
        config.port = 0
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield Running(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", service)
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
