"""Keeping keys out of what is shown and written: whatever this library logs, raises or writes passes through here.

``learn`` takes in the secrets of every LM, encoder and reranker that is met; those of the environment are always known.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import traceback
from collections.abc import Callable
from typing import Any

from radio_dspy.core.credentials import address_forms, secret_forms
from radio_dspy.core.credentials import learn as learn
from radio_dspy.core.secret_forms import HIDDEN, without
from radio_dspy.core.secret_names import is_secret_name
from radio_dspy.core.terminal import printable

_USERINFO = re.compile(r"(?<=://)[^\s/\"'<>]+@")
# Also of a header that only a function of the user's knew, such as azure_ad_token_provider.
_BEARER = re.compile(r"\b((?:bearer|basic) +)(?=\S*\d)[\w.~+/-]{16,}=*", re.IGNORECASE)
_PARAMETER = re.compile(r"(?<=[?&])([\w-]+)=([^&\s\"'<>]+)")
_DEPTH = 8
_LONGEST_CHAIN = 100  # errors that led to one another
# Whose records may repeat what a server said.
_LIBRARIES = (
    *("radio_dspy", "dspy", "LiteLLM", "litellm", "httpx", "httpcore", "openai", "anthropic", "cohere", "google"),
    *("botocore", "boto3", "aiohttp", "asyncio", "requests", "urllib3", "huggingface_hub", "transformers"),
    # Clients of stores, servers, trackers.
    *("chromadb", "grpc", "lancedb", "mlflow", "psycopg", "pymilvus", "qdrant_client", "sqlalchemy", "tenacity"),
    *("fastapi", "h11", "starlette", "uvicorn"),
)
# Loggers of theirs that are made at the first call, when it is too late.
_LATE = ("LiteLLM", "httpx", "httpcore.connection", "httpcore.http11", "openai._base_client", "urllib3.connectionpool")


def redacted(text: str, *keys: str | None) -> str:
    """The text with ``***`` in place of these keys and of every secret that is known, in whatever form.

    Example:
        >>> redacted("Incorrect API key provided: sk-12345678.", "sk-12345678")
        'Incorrect API key provided: ***.'
    """
    learn({"api_key": [key for key in keys if key]})
    text = without(text, secret_forms())
    text = _BEARER.sub(rf"\1{HIDDEN}", text)
    if "://" in text:
        text = _USERINFO.sub(f"{HIDDEN}@", text)
        text = _PARAMETER.sub(lambda found: f"{found[1]}={HIDDEN}" if is_secret_name(found[1]) else found[0], text)
    return text


def holds_secret(text: str) -> bool:
    """Whether a known secret stands in a text."""
    return _hidden(text) != text


def _hidden(text: str) -> str:
    return without(text, secret_forms())


def redacted_value(value: Any, depth: int = 0, clean: Callable[[str], str] | None = None) -> Any:
    """A value without known secrets in its strings; the same object where there are none.

    Example:
        >>> learn({"api_key": "sk-12345678"})
        >>> redacted_value({"said": ["refused: sk-12345678"], "status": 401})
        {'said': ['refused: ***'], 'status': 401}
    """
    if clean is None:
        clean = functools.partial(without, forms=secret_forms())  # asked for once: it looks through the environment
    if isinstance(value, str):
        return clean(value)
    if type(value) is bytes:
        return redacted_value(value.decode("latin-1")).encode("latin-1")
    if depth > _DEPTH:
        return _whole_or_hidden(value, clean)
    if type(value) is dict:
        found: Any = {
            redacted_value(key, _DEPTH, clean): redacted_value(one, depth + 1, clean) for key, one in value.items()
        }
    elif type(value) in (list, tuple, set, frozenset):
        found = type(value)(redacted_value(one, depth + 1, clean) for one in value)
    else:
        return value
    return value if found == value else found


def _whole_or_hidden(value: Any, clean: Callable[[str], str]) -> Any:
    """A value too deep to go through: as it is, or nothing of it where a secret is in it."""
    try:
        text = repr(value)
    except RecursionError:
        return "***"
    return value if clean(text) == text else "***"


def presentable(text: str) -> str:
    """A text of one or more lines as people may see it: no known secret, no character that steers a terminal."""
    return printable(redacted(text), lines=True)


def told(error: BaseException, *lms: Any) -> str:
    """An error's kind and text in one line for messages and records: no secret, no address, no control character."""
    learn(*lms)
    try:
        said = f"{type(error).__name__}: {error}"
    except Exception:  # code of others
        said = type(error).__name__
    return without(presentable(said), address_forms())


def cause_of(error: BaseException, *lms: Any) -> BaseException | None:
    """The error as a cause to be shown with a traceback, without secrets; None where it cannot be rid of them."""
    learn(*lms)
    return error if hide_in(error) else None


def hide_in(error: BaseException) -> bool:
    """Take known secrets out of an error, its causes, contexts, notes and attributes.

    Control characters in its texts become escapes: a server may have written them.

    What cannot be changed is cut off where it is another error's cause or context.

    Returns:
        Whether the error itself is free of secrets now.
    """
    return _hide(error, set())


def _hide(error: BaseException, seen: set[int]) -> bool:
    if id(error) in seen:
        return True
    seen.add(id(error))
    with contextlib.suppress(AttributeError, TypeError):  # an error may refuse
        error.args = redacted_value(error.args, clean=presentable)
    for name, value in list(vars(error).items()):
        shown = name in ("message", "__notes__")
        clean = redacted_value(value, clean=presentable if shown else _hidden)
        if clean is value and not isinstance(value, str | bytes) and _shows_secret(value):
            clean = None  # a request with its address, say
        if clean is not value:
            with contextlib.suppress(AttributeError, TypeError):
                setattr(error, name, clean)
    for name in ("strerror", "filename", "filename2", "reason", "msg", "text", "object"):  # Python's, beside ``args``
        value = getattr(error, name, None)
        if (clean := redacted_value(value, clean=presentable)) is not value:
            with contextlib.suppress(AttributeError, TypeError):
                setattr(error, name, clean)
    for name in ("__cause__", "__context__"):
        before = getattr(error, name)
        if before is not None and (len(seen) > _LONGEST_CHAIN or not _hide(before, seen)):
            suppressed = error.__suppress_context__
            setattr(error, name, None)
            error.__suppress_context__ = suppressed
    inner = [_hide(one, seen) for one in getattr(error, "exceptions", ()) if isinstance(one, BaseException)]
    return all(inner) and not holds_secret("".join(traceback.format_exception_only(error)) + repr(error))


def _shows_secret(value: Any) -> bool:
    try:
        return holds_secret(repr(value))
    except Exception:  # code of others
        return False


class _Filter(logging.Filter):
    """Keeps secrets and control characters out of a logger's records."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            said = record.getMessage()
        except (TypeError, ValueError):  # the caller's arguments do not fit: logging tells of it
            return True
        clean = presentable(said)
        if clean != said:
            record.msg, record.args = clean, None
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not hide_in(error):
            record.exc_info, record.exc_text = None, told(error)
        return True


_FILTER = _Filter()


def logger_of(name: str) -> logging.Logger:
    """A module's logger, whose records hold neither secrets nor control characters."""
    logger = logging.getLogger(name)
    logger.addFilter(_FILTER)
    return logger


def watch_logs() -> None:
    """Keep secrets out of the records of the libraries that carry our calls, too."""
    for name in (*_LATE, *logging.root.manager.loggerDict):
        logger = logging.getLogger(name) if name in _LATE else logging.root.manager.loggerDict[name]
        if isinstance(logger, logging.Logger) and name.partition(".")[0].partition(" ")[0] in _LIBRARIES:
            logger.addFilter(_FILTER)  # once: logging looks
