"""Keeping keys out of what is shown and written: providers may repeat the key that they did not like."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import dspy

_SECRET_VARIABLES = ("_KEY", "_SECRET", "_TOKEN", "_PASSWORD")
_SHORTEST = 8  # a server of one's own is often given "none": no secret, but a part of other words


def redacted(text: str, *keys: str | None) -> str:
    """The text with ``***`` in place of these keys and of every key in the environment.

    Example:
        >>> redacted("Incorrect API key provided: sk-12345678.", "sk-12345678")
        'Incorrect API key provided: ***.'
    """
    known = [value for name, value in os.environ.items() if name.endswith(_SECRET_VARIABLES)]
    for secret in sorted({one for one in (*keys, *known) if one and len(one) >= _SHORTEST}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def told(error: BaseException, *lms: Any) -> str:
    """An error's kind and text in one line, without the keys of the LMs that it may have come from."""
    return f"{type(error).__name__}: {redacted(str(error), *(getattr(lm, 'kwargs', {}).get('api_key') for lm in lms))}"


def cause_of(error: BaseException, *lms: Any) -> BaseException | None:
    """The error as a cause to be shown with a traceback; None where its text holds a key."""
    return error if str(error) in told(error, *lms) else None


def lms_of(program: dspy.Module) -> list[Any]:
    """The configured LM and those that a program's predictors were given, each once; others are not looked for."""
    import dspy

    predictors = program.named_sub_modules(dspy.Predict)  # also those that an optimizer has frozen
    found = [dspy.settings.lm, *(one.lm for _, one in predictors)]
    return list({id(lm): lm for lm in found if lm is not None}.values())
