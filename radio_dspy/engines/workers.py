"""What runs on a cluster's workers: two pure functions, of a block of texts and of an LM's request."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import dspy
from dspy.utils import exceptions

from radio_dspy.core.credentials import learn
from radio_dspy.core.redaction import presentable
from radio_dspy.lm.elsewhere import serde

if TYPE_CHECKING:
    from radio_dspy.models.encoder import TextEncoder, Vectors

Row = dict[str, Any]
_DETAILS = ("model", "provider", "provider_code", "status", "request_id", "retry_after")


def encode_block(texts: list[str], encoder: TextEncoder, *, query: bool) -> Vectors:
    """The vectors of a block, which is encoded alone."""
    return encoder._encode(texts, query=query, show_progress=False)


def ask_once(request: Row, lm: dspy.LM) -> Row:
    """Make one call: ``{"response": ...}``, or ``{"failure": ...}`` with an error as plain values, without secrets."""
    try:
        with dspy.context(disable_history=True, callbacks=[], usage_tracker=None):
            return {
                "response": serde.response_to_dict(lm(serde.request_from_dict(request)), include_provider_data=True)
            }
    except dspy.LMError as error:
        details = {name: getattr(error, name, None) for name in _DETAILS}
        return {
            "failure": {"kind": type(error).__name__, "message": presentable(error.message or str(error)), **details}
        }


def error_of(failure: Row) -> dspy.LMError:
    """The error that a worker met: the driver's retries and messages are then those of one process."""
    details = dict(failure)
    kind = getattr(exceptions, details.pop("kind"), dspy.LMUnexpectedError)
    error: dspy.LMError = kind(**details)
    return error


class EncoderWorker:
    """Holds an encoder; its model is loaded once."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder

    def ready(self) -> bool:
        """Whether it has been started."""
        return True

    def encode(self, texts: list[str], query: bool) -> Vectors:
        """See ``encode_block``."""
        return encode_block(texts, self._encoder, query=query)


class LMWorker:
    """Makes an LM's calls; several at the same time, each in a thread of its own.

    Args:
        lm: Who is asked.
        environment: The provider's variables, such as its key: a worker's machine may have others.
    """

    def __init__(self, lm: dspy.LM, environment: dict[str, str]) -> None:
        os.environ.update(environment)
        learn(lm)
        self._lm = lm

    def ready(self) -> bool:
        """Whether it has been started."""
        return True

    def ask(self, request: Row) -> Row:
        """See ``ask_once``."""
        return ask_once(request, self._lm)


def environment_of(lm: dspy.LM) -> dict[str, str]:
    """The variables in which this process has the provider's key and address."""
    provider = lm.model.partition("/")[0].upper() if "/" in lm.model else "OPENAI"
    others = {"BEDROCK": ("AWS_",), "VERTEX_AI": ("GOOGLE_", "VERTEX"), "GEMINI": ("GOOGLE_",)}
    beginnings = (f"{provider.partition('_')[0]}_", f"{provider}_", *others.get(provider, ()))
    return {name: value for name, value in os.environ.items() if name.startswith(beginnings)}
