"""Checks of single values: texts, numbers, scores."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Set
from decimal import Decimal
from numbers import Integral
from typing import Any
from uuid import UUID

from radio_dspy.core.errors import DataError

_TEXTS = ("contents", "text", "long_text", "page_content", "content")
_METADATA = ("metadata", "meta")  # LangChain and LlamaIndex; Haystack
_LARGEST = 10**100  # of a number that stands for a text
_SURROGATE = re.compile("[\ud800-\udfff]")
# White space, format characters, fillers of Hangul and Braille, variation selectors.
_UNSEEN = re.compile(
    r"[\s\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800"
    r"\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]*"
)


def shown(value: Any) -> str:
    """Show a value in an error message: its first 80 characters.

    Example:
        >>> shown(["ice"]), shown(10**5000)
        ("['ice']", 'int of more digits than Python writes')
    """
    try:
        return f"{value!r:.80}"
    except ValueError:  # from 4,300 digits on Python refuses
        return f"{type(value).__name__} of more digits than Python writes"
    except RecursionError:
        return f"{type(value).__name__} that is nested too deep to be shown"


def is_blank(text: str) -> bool:
    r"""Whether a text shows nothing: it is empty, or all white space and characters that are not seen.

    Example:
        >>> is_blank(" \u200b\ufeff"), is_blank("\u200bice")
        (True, False)
    """
    return _UNSEEN.fullmatch(text) is not None


def checked_text(value: Any, what: str) -> str:
    """A text that every tokenizer and every file takes.

    Args:
        value: What should be a text.
        what: Whose it is, for the message.

    Raises:
        DataError: If it is no string, or contains an unpaired surrogate, which UTF-8 cannot write.

    Example:
        >>> checked_text("Ice floats.", "Passage 'p1'")
        'Ice floats.'
    """
    if not isinstance(value, str):
        raise DataError(f"{what}: needs a string, got {shown(value)}.")
    if not value.isascii() and (found := _SURROGATE.search(value)):
        raise DataError(
            f"{what}: contains an unpaired surrogate ({found.group()!r} at {found.start()}), which cannot be "
            "written as UTF-8; replace or remove it."
        )
    return value


def is_plain_number(value: Any) -> bool:
    """Whether a value is a number that stands for a text, as in ``"id": 7``; true, false and NaN do not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -_LARGEST < value < _LARGEST


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, numpy's among them; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def plain_number(value: Any) -> Any:
    """A number or array of numpy's as Python's number or list; anything else as it is."""
    return value.tolist() if type(value).__module__ == "numpy" and hasattr(value, "tolist") else value


def plain_text(value: Any, what: str) -> str:
    """A text, or a number or a UUID as one.

    Args:
        value: A string, a number or a UUID.
        what: Whose it is, for the message.

    Raises:
        DataError: If it is anything else.

    Example:
        >>> plain_text(7, "The id"), plain_text(1912.0, "The answer")
        ('7', '1912')
    """
    if isinstance(value, UUID):
        return str(value)
    if is_plain_number(value):
        # A column of whole numbers becomes one of floats where pandas misses a value.
        return str(int(value) if value == int(value) else value)
    if not isinstance(value, str):
        raise DataError(f"{what}: needs a string or a number, got {shown(value)}.")
    return checked_text(value, what)


def finite_scores(scores: Iterable[Any], what: str) -> list[float]:
    """Scores as floats.

    Args:
        scores: Numbers.
        what: Whose they are, for the message.

    Raises:
        DataError: If one is not a finite number; the message has its position.

    Example:
        >>> finite_scores([1, 0.5], "Question 'q1'")
        [1.0, 0.5]
    """
    if isinstance(scores, str | bytes | Mapping | Set) or not isinstance(scores, Iterable):
        raise DataError(f"{what}: needs a list of scores, got {shown(scores)}.")
    values = []
    for position, score in enumerate(scores):
        try:
            value = math.nan if isinstance(score, str | bytes) else float(score)
        except (TypeError, ValueError, OverflowError):
            value = math.nan
        if not math.isfinite(value):
            raise DataError(
                f"{what}: The score at position {position} is {shown(score)}; every score must be a finite number."
            )
        values.append(value)
    return values


_PLAIN_NAME = re.compile(r"[\w.@-]+(?:[/:][\w.@-]+)+", re.ASCII)
_HOST = re.compile(r"(?:^|/)(?:localhost|\d+\.\d+\.\d+\.\d+)|:\d{2,5}(?:/|$)", re.IGNORECASE)
_NEVER = frozenset({"", ".", "..", "arn", "file", "ftp", "http", "https", "ws", "wss"})  # parts of a plain name
_IN_THIS_PROCESS = frozenset({"petals", "vllm"})  # providers for which LiteLLM loads the weights of any repository here


def is_plain_name(model: str) -> bool:
    """Whether a LiteLLM name is that of a provider and its model, and no address of a server.

    For some providers, such as ``huggingface``, LiteLLM takes an address as the model's name and sends the key there.

    Example:
        >>> names = ["ollama/nomic-embed-text:v1.5", "huggingface/http://10.0.0.1/embed", "openai/localhost:8000"]
        >>> [is_plain_name(name) for name in names]
        [True, False, False]
    """
    parts = re.split("[/:]", model.lower())
    plain = len(model) <= 300 and _PLAIN_NAME.fullmatch(model) and not _HOST.search(model)
    return bool(plain) and parts[0] not in _IN_THIS_PROCESS and _NEVER.isdisjoint(parts)


def is_weights_name(name: str) -> bool:
    """Whether a name is a hub's, or that of a folder without its place: what ``weights_name`` gives.

    Example:
        >>> [is_weights_name(name) for name in ("owner/model", "my-model", "/srv/model", "../model", "C:model")]
        [True, True, False, False, False]
    """
    parts = name.split("/")
    return len(parts) <= 2 and not any(part in ("", ".", "..", "~") or re.search(r"[\\:]", part) for part in parts)


def json_fields(given: Any) -> dict[str, Any]:
    """The fields of a mapping whose values are JSON types, dates as ISO text and arrays as lists, without all others.

    Example:
        >>> import datetime
        >>> json_fields({"day": datetime.date(2026, 1, 2), "score": float("nan"), "tags": ("a", "b")})
        {'day': '2026-01-02', 'tags': ['a', 'b']}
    """
    if not isinstance(given, Mapping):
        return {}
    found = {}
    for name, value in given.items():
        try:
            text = json.dumps([name, value], allow_nan=False, ensure_ascii=False, default=_as_json)
            text.encode("utf-8")
        except (TypeError, ValueError, RecursionError):
            continue
        if isinstance(name, str):
            found[name] = json.loads(text)[1]
    return found


def _as_json(value: Any) -> Any:
    if isinstance(value, Decimal | UUID):
        return str(value)
    if isinstance(value, Set):
        return sorted(value, key=str)
    for name in ("isoformat", "tolist"):
        if hasattr(value, name) and not isinstance(value, type):
            return getattr(value, name)()
    raise TypeError(f"{type(value).__name__} is no JSON type")
