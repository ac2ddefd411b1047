"""Leave out negatives that are probably relevant."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.passages import NULL_PASSAGE, Passage, RankRequest
from radio_dspy.core.renamed import old_names
from radio_dspy.core.text import contains_answer, same_words, telling
from radio_dspy.distillation.preferences.sampling import Sampled

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

    Example:
        >>> FalseNegatives(with_answer=False).absolute_margin
        0.05
    """

    with_answer: bool = True
    same_text: bool = True
    absolute_margin: float = 0.05

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
            return "same text"
        if self.with_answer and contains_answer(negative.contents, telling(request.answers)):
            return "contains an answer"
        if self.absolute_margin and gap < self.absolute_margin:
            return "within the margin"
        return ""


NO_GUARD = FalseNegatives(with_answer=False, same_text=False, absolute_margin=0.0)


def without_false_negatives(
    request: RankRequest,
    groups: Sequence[Sampled],
    fused: Mapping[str, float],
    guard: FalseNegatives,
    counts: Counter[str],
) -> list[Sampled]:
    """The groups without the negatives that the guard takes for positives; a group that keeps none is dropped.

    Args:
        request: The question and its candidates.
        groups: What was sampled: ids of each positive and of its negatives.
        fused: The fused score of each candidate, by passage id.
        guard: What is left out.
        counts: Gets one more for each negative left out, by reason, and for each ``group dropped``.
    """
    passages = {passage.id: passage for passage in (*request.candidates, NULL_PASSAGE)}
    kept = []
    for positive, negatives in groups:
        stay = []
        for one in negatives:
            reason = guard.reason(request, passages[positive], passages[one], fused[positive] - fused[one])
            if reason:
                counts[reason] += 1
            else:
                stay.append(one)
        if stay:
            kept.append((positive, tuple(stay)))
        else:
            counts["group dropped"] += 1
    return kept
