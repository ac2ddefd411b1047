"""Listen, in one process or several, and end in order."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import signal
import socket
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from radio_dspy.core.errors import RadioError, RunError, SettingsError
from radio_dspy.core.redaction import logger_of
from radio_dspy.serving.feedback import check_feedback
from radio_dspy.serving.metrics import SHARED_FOLDER
from radio_dspy.serving.settings import ServerSettings, is_loopback, read_keys

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from radio_dspy.serving.service import Source

logger = logger_of(__name__)
_FAILED = 3  # uvicorn's exit status of a worker that another try would not help
_WORKER_ANSWERS = 15  # seconds that a worker may be silent; one that loads its model answers


def serve(source: Source, settings: ServerSettings, announce: Callable[[str], None]) -> None:
    """Serve a program until SIGTERM or Ctrl-C: what is under way is then ended, and nothing new is taken.

    Args:
        source: The program.
        settings: How to listen, and the limits.
        announce: Told the address, once the server listens.

    Raises:
        RadioError: If a setting cannot be kept, or the program cannot be opened.
    """
    import uvicorn

    keys = read_keys(settings, dict(os.environ))
    if settings.feedback is not None:
        settings = replace(settings, feedback=check_feedback(settings.feedback))
    listening = _bind(settings)
    with contextlib.suppress(AttributeError):  # Windows has none
        # One that comes while the program is opened waits for who handles it; by default it would end the process.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    if not keys and not is_loopback(settings.host):
        logger.warning("%s: anyone who reaches it may ask: no keys are given (--api-key-file).", settings.host)
    settings = replace(settings, port=listening.getsockname()[1])
    factory = _Factory(source, settings)
    run = configured(factory, settings, factory=True)
    server = uvicorn.Server(run)
    # While the program is opened; uvicorn has a handler of its own, and raises the signal again when it has ended.
    signal.signal(signal.SIGTERM, lambda *_: None if server.should_exit else sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt), listening:
        if settings.workers == 1:
            run.app, run.factory = factory.open(lambda: None), False
            announce(settings.address)
            server.run(sockets=[listening])
        else:
            with tempfile.TemporaryDirectory(prefix="radio-dspy-") as shared:
                os.environ[SHARED_FOLDER] = shared  # workers inherit it
                # A worker that cannot start ends the server, which then has announced nothing.
                threading.Thread(target=_announce_first, args=(settings.address, announce), daemon=True).start()
                _workers(run, listening)


def _announce_first(address: str, announce: Callable[[str], None]) -> None:
    """Announce the address when the first worker answers."""
    asking = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # not by way of a proxy of the environment
    with contextlib.suppress(OSError), asking.open(f"{address}/health"):
        announce(address)


def configured(app: Any, settings: ServerSettings, *, factory: bool = False) -> uvicorn.Config:
    """How uvicorn runs an application, or what makes it."""
    import uvicorn

    from radio_dspy.serving.connection import Connection

    return uvicorn.Config(
        app,
        factory=factory,
        workers=settings.workers,
        http=cast(Any, functools.partial(Connection, time_limit=settings.time_limit)),
        ws="none",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.time_limit) + 1,
        timeout_worker_healthcheck=_WORKER_ANSWERS,
    )


def _bind(settings: ServerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        reason = str(error.strerror or error).partition(" (while ")[0]
        raise SettingsError(f"{settings.address}: cannot listen ({reason}); give another --port or --host.") from None


@dataclass(frozen=True)
class _Factory:
    """Makes a worker's application; uvicorn sends it to the worker."""

    source: Source
    settings: ServerSettings

    def open(self, tell_workers: Callable[[], None]) -> FastAPI:
        """The application, whose program stays open until it ends.

        Raises:
            RadioError: If the program cannot be opened.
        """
        from radio_dspy.serving.app import create_app
        from radio_dspy.serving.service import open_service

        stack = contextlib.ExitStack()
        service = stack.enter_context(open_service(self.source, self.settings))
        return create_app(service, tell_workers=tell_workers, close=stack.close)

    def __call__(self) -> FastAPI:
        """The application of a worker."""
        from radio_dspy.lm.secrets import hiding_secrets

        try:
            with hiding_secrets():
                return self.open(lambda: os.kill(os.getppid(), signal.SIGHUP))
        except RadioError as error:
            logger.error("%s", error)
            sys.exit(_FAILED)


def _workers(run: uvicorn.Config, listening: socket.socket) -> None:
    """Run several processes; one that dies is replaced, and SIGHUP reaches each.

    Raises:
        RunError: If one cannot start.
    """
    from prometheus_client.multiprocess import mark_process_dead
    from uvicorn.supervisors.multiprocess import Multiprocess

    class Workers(Multiprocess):
        """uvicorn's, whose SIGHUP would replace the processes."""

        def keep_subprocess_alive(self) -> None:
            before = {one.pid for one in self.processes}
            super().keep_subprocess_alive()
            for pid in before - {one.pid for one in self.processes}:
                mark_process_dead(pid)  # what it was answering is under way no more

        def handle_hup(self) -> None:
            for one in self.processes:
                if one.pid is not None:
                    os.kill(one.pid, signal.SIGHUP)

    workers = Workers(run, sockets=[listening])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    workers.run()
    if any(one.exitcode == _FAILED for one in workers.processes):
        raise RunError("A worker could not start; what it said stands above.")
