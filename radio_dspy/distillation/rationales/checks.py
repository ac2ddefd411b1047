"""Problems of a rationale: empty, a refusal, a loop, without the answer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from radio_dspy.core.text import contains_answer, telling, unspaced, words
from radio_dspy.distillation.preferences.guards import _COUNTED

_REFUSAL = re.compile(
    r"\b(i (can ?not|can't|am unable|am not able|won't|will not|do not know|don't know)|i'm (sorry|unable|not able)|"
    r"as an ai|sorry, (but )?i|unable to (answer|provide|help|assist)|not enough (information|context))\b",
    re.IGNORECASE,
)
_REFUSAL_WITHIN = 120  # characters: a refusal is said at once, a later "I cannot" may belong to the reasons
_LOOP_WORDS = 4
_LOOP_SYLLABLES = 8  # about as many words, in scripts that write no spaces
_LOOP_TIMES = 3
_ANSWER_SHARE = 0.5  # of a long answer's words


def rationale_problem(rationale: str, answers: Sequence[str], *, tokens: int = 0, window: int | None = None) -> str:
    """The reason why a rationale is useless as a guide; empty if it is fine.

    Args:
        rationale: As the LM wrote it.
        answers: The gold answers: a rationale that explains one names it, or at least half of a long one's words.
        tokens: Length of the whole guide in the encoder's tokens.
        window: How many tokens the encoder reads; None has no limit.

    Example:
        >>> rationale_problem("Vapour takes heat along.", ["evaporation"])
        'answer missing'
        >>> rationale_problem("I cannot help with that.", ["evaporation"])
        'refusal'
    """
    named = any(one.strip() and one in rationale for one in answers)
    if not named and not any(map(str.isalnum, rationale)):
        return "empty"
    if _REFUSAL.search(rationale[:_REFUSAL_WITHIN].replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")):
        return "refusal"
    if _loops(rationale):
        return "repetition"
    expected = telling(answers)
    if expected and not any(_names(rationale, answer) for answer in expected):
        return "answer missing"
    if window is not None and tokens > window:
        return "longer than the encoder's window"
    return ""


def _names(rationale: str, answer: str) -> bool:
    if contains_answer(rationale, [answer]):
        return True
    wanted, said = words(answer), words(rationale)
    if _is_unspaced(wanted):  # single syllables say little
        parts, among, long = set(pairwise(wanted)), set(pairwise(said)), len(wanted) > 4
        return long and len(parts & among) >= _ANSWER_SHARE * len(parts)
    distinct = set(wanted)
    return len(distinct) > 2 and len(distinct & set(said)) >= _ANSWER_SHARE * len(distinct)


def _loops(text: str) -> bool:
    """Whether the text repeats itself: one run of words makes up most of it, numbers of a list aside."""
    said = words(_COUNTED.sub(" ", text))
    if len(set(said)) == 1:
        return len(said) >= _LOOP_TIMES
    length = _LOOP_SYLLABLES if _is_unspaced(said) else _LOOP_WORDS
    runs = Counter(tuple(said[i : i + length]) for i in range(len(said) - length + 1))
    repeated = sum(count for count in runs.values() if count >= _LOOP_TIMES)
    return repeated > sum(runs.values()) / 2


def _is_unspaced(said: Sequence[str]) -> bool:
    return sum(map(unspaced, said)) > len(said) / 2
