"""What a run raises when its LM fails: this library's error and DSPy's at once."""

from __future__ import annotations

from typing import Any

import dspy

from radio_dspy.errors import LanguageModelError


class LMFailedError(dspy.LMError, LanguageModelError):
    """Caught by ``except LanguageModelError`` and by ``except dspy.LMError``; made by ``lm_failure``."""

    def __init__(self, message: str, **told: Any) -> None:
        dspy.LMError.__init__(self, message, **told)


def lm_failure(text: str, error: dspy.LMError, lm: Any = None) -> LMFailedError:
    """An error with this text, and with what DSPy's own tells of who failed and how.

    Args:
        text: What failed and what to do next, without keys.
        error: What DSPy raised.
        lm: The LM, where it is known: LiteLLM's errors leave out the first part of its name.

    Example:
        >>> lm_failure("openai/x failed. Wait.", dspy.LMRateLimitError("slow", provider="openai", status=429)).status
        429
    """
    failure = LMFailedError(
        text,
        code=error.code,
        provider=error.provider,
        provider_code=error.provider_code,
        status=error.status,
        request_id=error.request_id,
        retry_after=error.retry_after,
    )
    failure.model = getattr(lm, "model", None) or error.model  # given above, it would be put before the text
    return failure
