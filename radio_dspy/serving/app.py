"""The application: all routes, behind the guard."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response, Security
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import PlainTextResponse
from fastapi.security import HTTPBearer

from radio_dspy._version import __version__
from radio_dspy.core.credentials import learn
from radio_dspy.core.errors import RadioError
from radio_dspy.core.redaction import logger_of, watch_logs
from radio_dspy.models.endpoint import shown_name
from radio_dspy.programs.multiple_choice import MultipleChoice
from radio_dspy.serving import program_routes, rerank_routes
from radio_dspy.serving.errors import handle_errors
from radio_dspy.serving.guard import Guard
from radio_dspy.serving.metrics import Measured
from radio_dspy.serving.service import Service
from radio_dspy.serving.settings import read_keys
from radio_dspy.serving.shapes import Ready, Refusal, Version

logger = logger_of(__name__)
_PAGE_FILES = {"": "text/html", "page.js": "text/javascript", "page.css": "text/css"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
state = APIRouter(tags=["state"])
page = APIRouter(include_in_schema=False)


def _nothing() -> None:
    """What is done where there is nothing to do."""


def create_app(
    service: Service, *, tell_workers: Callable[[], None] = _nothing, close: Callable[[], None] = _nothing
) -> FastAPI:
    """The application that serves a program.

    Args:
        service: The program, opened.
        tell_workers: Has the other workers load the program again.
        close: Called when the application has ended.
    """
    keys = read_keys(service.settings, dict(os.environ))
    learn({"api_key": list(keys)})  # no log or error has them
    refused: dict[str, Any] = {"model": Refusal, "description": "Not answered; `detail` says why."}
    watch_logs()
    app = FastAPI(
        title="radio-dspy",
        version=__version__,
        lifespan=_running,
        redoc_url=None,
        responses={"4XX": refused, "5XX": refused},
        strict_content_type=True,  # a form of another page cannot send JSON without asking first
        dependencies=[Security(HTTPBearer(auto_error=False))],  # the guard checks; this is for the OpenAPI page
    )
    app.state.service = service
    app.state.keyed = bool(keys)
    app.state.tell_workers = tell_workers
    app.state.close = close
    for router in (rerank_routes.router, program_routes.router, state, page):
        app.include_router(router)
    handle_errors(app)
    app.add_middleware(Guard, service=service, keys=keys)
    if service.settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(service.settings.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
        )
    app.add_middleware(Measured, metrics=service.metrics)
    return app


@contextlib.asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[None]:
    """Score in the background, and load the program again at SIGHUP."""
    service: Service = app.state.service
    tasks = [asyncio.create_task(service.batcher.run())]
    loop = asyncio.get_running_loop()

    def reload() -> None:
        tasks.append(asyncio.create_task(_reload(service)))

    # Only a process's main thread hears signals, and not on Windows.
    with contextlib.suppress(AttributeError, NotImplementedError, RuntimeError, ValueError):
        loop.add_signal_handler(signal.SIGHUP, reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # blocked while the program was opened
    yield
    for one in tasks:
        one.cancel()
    app.state.close()


async def _reload(service: Service) -> None:
    try:
        await service.reload()
    except RadioError as error:
        logger.error("The program was not loaded again, and the one in hand stays: %s", error)


@state.get("/health")
async def health() -> dict[str, str]:
    """Whether the server answers."""
    return {"status": "ok"}


@state.get("/ready", responses={503: {"model": Ready, "description": "As many requests wait as may."}})
async def ready(request: Request, response: Response) -> Ready:
    """Whether a request would be taken."""
    service: Service = request.app.state.service
    response.status_code = 503 if service.is_full else 200
    return Ready(ready=not service.is_full)


@state.get("/version")
async def version(request: Request) -> Version:
    """What is served."""
    service: Service = request.app.state.service
    loaded = service.loaded
    weights = loaded.rerank.weights
    return Version(
        release=__version__,
        program=type(loaded.program).__name__,
        base=weights.base,
        fingerprint=loaded.fingerprint,
        lm=service.lm and shown_name(str(service.lm.model)),
        orders=list(loaded.programs),
        candidates=loaded.program.candidates,
        k=loaded.program.k,
        feedback=service.settings.feedback is not None,
        choices=isinstance(loaded.program, MultipleChoice),
    )


@state.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Counts and times in Prometheus' form."""
    return PlainTextResponse(request.app.state.service.metrics.text(), media_type="text/plain; version=0.0.4")


def _add_page(name: str, kind: str) -> None:
    @page.get(f"/{name}")
    async def file() -> Response:
        headers = {"content-security-policy": _POLICY, "referrer-policy": "no-referrer", "cache-control": "no-cache"}
        return Response(_page_file(name or "index.html"), media_type=kind, headers=headers)


@cache
def _page_file(name: str) -> bytes:
    found = (files("radio_dspy.serving") / "page" / name).read_bytes()
    if name == "page.css":  # behind the style of report.html, which it goes on from
        return (files("radio_dspy.reporting") / "templates" / "report.css").read_bytes() + found
    return found


for _name, _kind in _PAGE_FILES.items():
    _add_page(_name, _kind)
