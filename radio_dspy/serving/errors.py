"""What a request that fails is told: a status and a reason, and never a traceback."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import dspy
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from radio_dspy.core.errors import (
    CheckpointError,
    DataError,
    LanguageModelError,
    RadioError,
    RunError,
    SettingsError,
    StoreError,
)
from radio_dspy.core.redaction import logger_of, told
from radio_dspy.serving.settings import LimitError

logger = logger_of(__name__)
_SHOWN = 3  # wrong fields of a request
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (LimitError, 413),
    (dspy.ContextWindowExceededError, 413),
    (UnicodeError, 422),
    (CheckpointError, 500),
    (DataError, 422),
    (SettingsError, 409),  # what was asked for is not what this server was started with
    (LanguageModelError, 502),
    (dspy.LMError, 502),
    (StoreError, 502),
    (TimeoutError, 504),  # of a store or an LM
    (asyncio.TimeoutError, 504),  # before Python 3.11
    (RunError, 507),  # a disk that is full or broken
)


@dataclass(frozen=True)
class Answer:
    """What a failure is told as."""

    status: int
    reason: str


def answer_to(error: Exception) -> Answer:
    """The status and the reason of a failure; one that nobody foresaw is in the log alone."""
    for kind, status in _STATUS:
        if isinstance(error, kind):
            ours = status < 500 and isinstance(error, RadioError)
            reason = " ".join(str(error).split()) if ours else told(error)
            own = f"{type(error).__name__}: " if isinstance(error, RadioError) else ""
            return Answer(status, reason.removeprefix(own))
    logger.error("A request failed.", exc_info=error)
    return Answer(500, "the server failed; its log says why.")


def handle_errors(app: FastAPI) -> None:
    """Have an application tell its failures."""

    async def failed(_: Request, error: Exception) -> JSONResponse:
        answer = answer_to(error)
        return JSONResponse({"detail": answer.reason}, answer.status)

    async def refused(_: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, HTTPException):
            return await failed(_, error)
        return JSONResponse({"detail": str(error.detail)}, error.status_code, error.headers)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        wrong = error.errors() if isinstance(error, RequestValidationError) else []
        # Without the values that were sent: they may be large, or nothing that JSON can hold.
        reasons = [f"{_place(one['loc'])}: {one['msg']}" for one in wrong[:_SHOWN]]
        text = "; ".join(reasons).encode("utf-8", "replace").decode()
        if [one["loc"] for one in wrong] == [("body",)] and not _is_json(request):
            text = "the body is read as JSON alone: send the header Content-Type: application/json"
        return JSONResponse({"detail": f"{text}; see /openapi.json."}, 422)

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, refused)
    for kind, _ in _STATUS:
        app.add_exception_handler(kind, failed)


def _is_json(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower().endswith("json")


def _place(parts: Sequence[str | int]) -> str:
    """A field's place; without the shape, which stands before a field's name where a body may have one of two."""
    if len(parts) > 2 and parts[1] in ("texts", "documents") and isinstance(parts[2], str):
        parts = [parts[0], *parts[2:]]
    return ".".join(str(part)[:40] for part in parts)
