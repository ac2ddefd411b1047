"""Leave out negatives that are probably relevant."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dspy

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.passages import NULL_PASSAGE, Passage
from radio_dspy.core.rankings import RankRequest
from radio_dspy.core.renamed import old_names
from radio_dspy.core.text import contains_answer, same_words, telling
from radio_dspy.distillation.preferences.sampling import Sampled

Verdicts = Mapping[str, bool | None]  # of suspicious negatives, by passage id: whether they help; None: unclear
_SAME_TEXT = "same text"
_BECAME = {True: "became a positive", False: "stayed a negative"}
_COUNTED = re.compile(r"(?:^|(?<=[\n.!?:;。]))\s*(?:[^\W\d]+\s)?\(?[0-9]{1,3}\s?[.):、]\s")  # Step 3:


@old_names(margin="absolute_margin")
@dataclass(frozen=True, slots=True)
class FalseNegatives:
    """Leaves probable false negatives out of a group. All off is the paper's behaviour.

    Attributes:
        with_answer: Those that contain a gold answer; see ``radio_dspy.core.text.contains``.
        same_text: Those whose text is the positive's.
        absolute_margin: Those whose fused score lies less than this below the positive's; 0 turns it off. Fused scores
            span at most [0, 1]: 0.05 is a twentieth of that.
        relabel: An LM, best a small one, that looks at those which contain an answer or lie within the margin: one that
            helps becomes the positive of a group of its own, one that does not stays a negative, and an unclear one is
            left out. A call for each; None leaves all of them out.

    Example:
        >>> FalseNegatives(with_answer=False).absolute_margin
        0.05
    """

    with_answer: bool = True
    same_text: bool = True
    absolute_margin: float = 0.05
    relabel: dspy.LM | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.absolute_margin < 1:
            raise SettingsError(f"absolute_margin must lie in [0, 1), got {self.absolute_margin}.")

    def reason(self, request: RankRequest, positive: Passage, negative: Passage, gap: float) -> str:
        """Why a negative is left out; empty where it is kept.

        Args:
            request: The question.
            positive: The group's positive.
            negative: One of its negatives.
            gap: How far its fused score lies below the positive's.
        """
        if self.same_text and same_words(negative.contents, positive.contents):
            return _SAME_TEXT
        if self.with_answer and contains_answer(negative.contents, telling(request.answers)):
            return "contains an answer"
        if self.absolute_margin and gap < self.absolute_margin:
            return "within the margin"
        return ""


NO_GUARD = FalseNegatives(with_answer=False, same_text=False, absolute_margin=0.0)


def suspicious(
    request: RankRequest, groups: Sequence[Sampled], fused: Mapping[str, float], guard: FalseNegatives
) -> set[str]:
    """The ids of the negatives that the guard would leave out, but for copies of their positive."""
    passages = {passage.id: passage for passage in (*request.candidates, NULL_PASSAGE)}
    return {
        one
        for positive, negatives in groups
        for one in negatives
        if guard.reason(request, passages[positive], passages[one], fused[positive] - fused[one])
        not in ("", _SAME_TEXT)
        and NULL_PASSAGE.id not in (positive, one)
    }


def without_false_negatives(
    request: RankRequest,
    groups: Sequence[Sampled],
    fused: dict[str, float],
    guard: FalseNegatives,
    counts: Counter[str],
    verdicts: Verdicts | None = None,
) -> list[Sampled]:
    """The groups without the negatives that the guard takes for positives; a group that keeps none is dropped.

    Args:
        request: The question and its candidates.
        groups: What was sampled: ids of each positive and of its negatives.
        fused: The fused score of each candidate, by passage id; a negative that becomes a positive gets its positive's.
        guard: What is left out.
        counts: Gets one more for each negative left out, by reason, for each ``group dropped``, and for each that an
            LM looked at, by what became of it.
        verdicts: What the guard's LM says of suspicious negatives; see ``judged``.
    """
    passages = {passage.id: passage for passage in (*request.candidates, NULL_PASSAGE)}
    kept: list[Sampled] = []
    raised: dict[str, Sampled] = {}
    for positive, negatives in groups:
        stay, helping = [], []
        for one in negatives:
            reason = guard.reason(request, passages[positive], passages[one], fused[positive] - fused[one])
            verdict = (verdicts or {}).get(one) if reason != _SAME_TEXT and positive != NULL_PASSAGE.id else None
            if not reason or verdict is False:
                stay.append(one)
            elif verdict:
                helping.append(one)
            if reason:
                counts[reason if verdict is None else _BECAME[verdict]] += 1
        if stay:
            kept.append((positive, tuple(stay)))
            raised.update({one: (one, tuple(stay)) for one in helping if one not in raised})
            fused.update(dict.fromkeys(helping, fused[positive]))
        else:
            counts["group dropped"] += 1
    first = {positive for positive, _ in kept}
    return [*kept, *(group for one, group in raised.items() if one not in first)]
