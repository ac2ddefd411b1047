"""Find the option of a multiple-choice question that an answer names."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Sequence
from typing import Any

from radio_dspy.core.text import folded

_LETTERS = string.ascii_uppercase
_LONE_LETTER = re.compile(r"[(\[]?\s*([a-z])\s*[)\].:,]*")
_MARKED_LETTER = re.compile(r"[(\[]?\s*([a-z])\s*[)\].:]+\s*")


def option_letters(golds: Iterable[Any], choices: Sequence[str], *, first: int = 1) -> tuple[str, ...]:
    """The capital letters that the golds of a multiple-choice question stand for, each once.

    A gold is a letter (``b``, ``(B)``, ``B. heat``), an option's text, or its number: a whole number counts from 0, as
    in ``cais/mmlu``; digits in a string are a label and count from ``first``, as in ARC. A lone letter is always a
    letter, and digits that are an option's text are that option.

    Args:
        golds: The gold answers; those that name no option are passed over.
        choices: The options' texts.
        first: What the first option is called where a string of digits names it.

    Example:
        >>> choices = ["cold", "heat", "salt"]
        >>> [option_letters([gold], choices) for gold in ("b", "Heat", "2", 1, "warmth")]
        [('B',), ('B',), ('B',), ('B',), ()]
    """
    texts = [folded_option(choice) for choice in choices]
    found = (_LETTERS[position] for gold in golds for position in _positions(gold, texts, first))
    return tuple(dict.fromkeys(found))


def _positions(gold: Any, texts: Sequence[str], first: int) -> list[int]:
    """The options that a gold answer names: several only if they read the same."""
    size = min(len(texts), len(_LETTERS))
    if isinstance(gold, int | float) and not isinstance(gold, bool) and gold in range(size):
        return [int(gold)]
    said = folded_option(str(gold))
    lone = _LONE_LETTER.fullmatch(said)
    if lone and (place := ord(lone[1]) - ord("a")) < size:
        return [place]
    if said and (same := [place for place in range(size) if texts[place] == said]):
        return same
    if isinstance(gold, str) and said.isdecimal() and len(said) < 4 and int(said) - first in range(size):
        return [int(said) - first]
    marked = _MARKED_LETTER.match(said)
    if marked and (place := ord(marked[1]) - ord("a")) < size and said[marked.end() :] == texts[place]:
        return [place]
    return []


def folded_option(text: str) -> str:
    """An option's text as it is compared: without case, form of marks, and a final full stop; signs stay."""
    return " ".join(folded(text).split()).rstrip(".\u3002")
