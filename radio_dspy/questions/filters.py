"""Tell by words alone whether a made question is of use, and whether a reply says its answer."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence

from radio_dspy.core.passages import Passage
from radio_dspy.core.text import contains, telling, words
from radio_dspy.evaluation.metrics import token_f1

_SAME = 0.8  # of the words that two questions have together (Jaccard)
_SHORT = 5  # words of an answer that must stand in the passage as it is
_MOST = 0.8  # of the words of a longer one
_GIVEN = 0.6  # token F1 from which an answer counts as the same
_LONGEST = 80  # words of a question
_OF_A_TEXT = re.compile(
    r"\b(the|this|that|these|those|given|above|provided|first|second|both|two)\s+"
    r"(passages?|texts?|documents?|paragraphs?|excerpts?|contexts?|articles?|statements?|snippets?)\b"
    r"|\b(according to|based on|as (mentioned|described|stated)) (in )?(the )?(above|below)\b",
    re.IGNORECASE,
)

UNREADABLE = "no question and answer came back"
NO_PARTNER = "no second passage near the first"
TOO_LONG = "longer than a question"
SELF_REFERENCE = "speaks of the passage"
OWN_ANSWER = "holds its own answer"
NOT_IN_PASSAGE = "answer not in the passage"
NOT_FOUND = "passage not found by the first stage"
REPEATED = "nearly the same as another question"
KNOWN = "answered without the passage"
ONE_ENOUGH = "answered from one of its passages alone"
# In the order in which they are looked at: what costs nothing comes first.
REASONS = (
    *(NO_PARTNER, UNREADABLE, TOO_LONG, SELF_REFERENCE, OWN_ANSWER),
    *(NOT_IN_PASSAGE, NOT_FOUND, REPEATED, KNOWN, ONE_ENOUGH),
)


def wording_problem(question: str, answer: str, passages: Sequence[Passage]) -> str:
    """Why a question is no use by its own words and those of its passages; empty where it is fine.

    Example:
        >>> ice = [Passage("a", "Ice floats since it is less dense than water.")]
        >>> wording_problem("Why does ice float?", "it is less dense", ice)
        ''
        >>> wording_problem("What does the passage say of ice?", "it is less dense", ice)
        'speaks of the passage'
    """
    if len(words(question)) > _LONGEST:
        return TOO_LONG
    if _OF_A_TEXT.search(question):
        return SELF_REFERENCE
    if contains(question, answer):
        return OWN_ANSWER
    return "" if any(stands_in(one.contents, answer) for one in passages) else NOT_IN_PASSAGE


def stands_in(text: str, answer: str) -> bool:
    """Whether a text holds an answer: one of up to five words as it is, of a longer one four words in five.

    Yes and no stand in no text: they would count as found anywhere.

    Example:
        >>> stands_in("Heat kills the yeast in the dough.", "heat"), stands_in("Heat kills yeast.", "yes")
        (True, False)
    """
    if not telling([answer], 1):
        return False
    if contains(text, answer):
        return True
    said = words(answer)
    known = set(words(text))
    return len(said) > _SHORT and sum(one in known for one in said) >= _MOST * len(said)


def gives(reply: str, answer: str) -> bool:
    """Whether a reply says the answer.

    Example:
        >>> gives("I think that it is yeast.", "yeast"), gives("unknown", "yeast")
        (True, False)
    """
    return contains(reply, answer) or token_f1(reply, [answer]) >= _GIVEN


class Distinct:
    """Questions that are not nearly the same: of two with four words in five together the first stays.

    Example:
        >>> seen = Distinct()
        >>> seen.add("Why does ice float on water?"), seen.add("why does ice float, on water")
        (True, False)
    """

    def __init__(self) -> None:
        self._sets: list[frozenset[str]] = []
        self._with: defaultdict[str, list[int]] = defaultdict(list)

    def add(self, question: str) -> bool:
        """Take a question in, unless one that is nearly the same is there."""
        said = frozenset(words(question))
        # Two sets that share four words in five share one of the first few of each, in whatever order is the same for
        # both: long words come first, since fewer questions have them.
        first = sorted(said, key=lambda one: (-len(one), one))[: len(said) - math.ceil(_SAME * len(said)) + 1]
        near = {number for one in first for number in self._with[one]}
        if any(len(said & self._sets[one]) >= _SAME * len(said | self._sets[one]) for one in near):
            return False
        for one in first:
            self._with[one].append(len(self._sets))
        self._sets.append(said)
        return True
