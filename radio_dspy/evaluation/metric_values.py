"""Check a user's metric and the values that it gives."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import dspy

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.redaction import cause_of, told
from radio_dspy.core.validation import shown
from radio_dspy.lm.calls import lm_failure
from radio_dspy.lm.replies import what_came
from radio_dspy.lm.secrets import lms_of

_LARGEST = 1e100  # means of larger values overflow
_GEPA = 5  # (gold, prediction, trace, predictor's name, predictor's trace)


def check_metric(metric: Any) -> None:
    """Refuse what cannot be called as a metric, before anything is computed.

    Raises:
        SettingsError: If it is no function of (example, prediction), also with a trace, or with GEPA's five arguments.
    """
    if not callable(metric):
        raise SettingsError(f"metric must be a function of (example, prediction), got {shown(metric)}.")
    if inspect.isclass(metric):
        raise SettingsError(f"The metric {name_of(metric)} is a class; give an object of it, {name_of(metric)}().")
    call = metric if inspect.isroutine(metric) else type(metric).__call__
    if inspect.iscoroutinefunction(metric) or inspect.iscoroutinefunction(call):
        raise SettingsError(f"The metric {name_of(metric)} is asynchronous; give a function that returns its value.")
    if not any(_takes(metric, count) for count in (2, 3, _GEPA)):
        raise SettingsError(
            f"The metric {name_of(metric)}{inspect.signature(metric)} cannot be called; it must take (example, "
            "prediction), and may take a trace, or GEPA's five arguments."
        )


def name_of(metric: Any) -> str:
    """A metric's name for messages."""
    return str(getattr(metric, "__name__", type(metric).__name__))


def metric_value(
    metric: Callable[..., Any], example: dspy.Example, prediction: Any, question: str, kept: str = ""
) -> tuple[float, str]:
    """A metric's value for a prediction, and the error if it counts as 0.

    A reply of the metric's own LM that cannot be read counts as 0, with what came back.

    Args:
        metric: As ``check_metric`` takes it.
        example: The question with its gold answers.
        prediction: What the program gave.
        question: The question's id, for messages.
        kept: What to add to messages: where earlier results are.

    Raises:
        SettingsError: If the metric raises, or gives anything but a finite number, true or false, or an object with
            such a ``score``.
        LanguageModelError: If the metric's own LM fails.
    """
    count = next((one for one in (2, 3, _GEPA) if _takes(metric, one)), 2)
    return value_of(lambda: metric(example, prediction, *[None] * (count - 2)), metric, question, kept)


def value_of(call: Callable[[], Any], metric: Any, question: str, kept: str = "") -> tuple[float, str]:
    """As ``metric_value``, for any call of a metric."""
    try:
        value = call()
    except dspy.LMError as error:
        text = f"The LM that the metric {name_of(metric)} asks failed on question {question!r} ({told(error)}).{kept}"
        raise lm_failure(text, error) from cause_of(error)
    except Exception as error:
        return 0.0, _unreadable(error, metric, question, kept)
    return checked_value(value, metric, question, kept), ""


def checked_value(value: Any, metric: Any, question: str, kept: str = "") -> float:
    """A metric's value as a float.

    Raises:
        SettingsError: If it is no finite number, and no object with a ``score`` that is one.
    """
    number: Any = value if hasattr(value, "__float__") else getattr(value, "score", None)
    try:
        found = float(number) if hasattr(number, "__float__") or isinstance(number, bool) else math.nan
    except Exception:  # such as torch's, for several values
        found = math.nan
    if inspect.iscoroutine(value):
        value.close()
    if not abs(found) <= _LARGEST:
        raise SettingsError(
            f"The metric {name_of(metric)} gave {shown(value)} for question {question!r}; it must give a finite "
            f"number, True or False, or a dspy.Prediction with such a score.{kept}"
        )
    return found


def _unreadable(error: Exception, metric: Any, question: str, kept: str) -> str:
    """The unreadable reply of a judge's LM; any other error is the metric's own."""
    lms = lms_of(metric) if isinstance(metric, dspy.Module) else ()
    try:
        return f"the metric's LM sent {what_came(error, *lms)}"
    except Exception:
        raise SettingsError(
            f"The metric {name_of(metric)} failed on question {question!r} ({told(error, *lms)}); mend it, or have it "
            f"return 0 there.{kept}"
        ) from cause_of(error, *lms)


def _takes(metric: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(metric).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # built-in functions may tell nothing of their arguments
        return count == 2
    return True
