"""Guards around the training data: negatives that are not negative, rationales that explain nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from radio_dspy.distillation.groups import PreferenceGroup
from radio_dspy.errors import SettingsError
from radio_dspy.metrics import normalize_answer
from radio_dspy.passages import Passage, RankRequest, contains_answer

_REFUSAL = re.compile(
    r"\b(i (can ?not|can't|am unable|am not able|won't|will not|do not know|don't know)|i'm (sorry|unable|not able)|"
    r"as an ai|sorry, (but )?i|unable to (answer|provide|help|assist)|not enough (information|context))\b",
    re.IGNORECASE,
)
_REFUSAL_WITHIN = 120  # characters: a refusal is said at once, a later "I cannot" may belong to the reasons
_CLOSED_ANSWERS = frozenset({"yes", "no", "maybe", "true", "false", "noanswer"})
_LOOP_WORDS = 4
_LOOP_TIMES = 3
_ANSWER_SHARE = 0.5  # of a long answer's words


def telling(answers: Sequence[str]) -> list[str]:
    """The answers whose presence in a text says something: not yes, no or a lone letter.

    Example:
        >>> telling(["no", "C", "evaporation"])
        ['evaporation']
    """
    return [one for one in answers if len(normalize_answer(one)) > 1 and normalize_answer(one) not in _CLOSED_ANSWERS]


@dataclass(frozen=True, slots=True)
class FalseNegatives:
    """Which negatives are left out of a group because they may well be positives. All off is the paper's behaviour.

    Attributes:
        with_answer: Those that contain a gold answer (whole words, SQuAD's normalisation).
        same_text: Those whose text is the positive's.
        margin: Those whose fused score lies less than this below the positive's; 0 turns it off. Fused scores span at
            most [0, 1]: 0.05 is a twentieth of that.

    Example:
        >>> FalseNegatives(with_answer=False).margin
        0.05
    """

    with_answer: bool = True
    same_text: bool = True
    margin: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.margin < 1:
            raise SettingsError(f"margin must lie in [0, 1), got {self.margin}.")

    def reason(self, request: RankRequest, positive: Passage, negative: Passage, gap: float) -> str:
        """Why a negative is left out; empty where it is kept.

        Args:
            request: The question.
            positive: The group's positive.
            negative: One of its negatives.
            gap: How far its fused score lies below the positive's.
        """
        if self.same_text and normalize_answer(negative.contents) == normalize_answer(positive.contents):
            return "same text"
        if self.with_answer and contains_answer(negative.contents, telling(request.answers)):
            return "contains an answer"
        if self.margin and gap < self.margin:
            return "within the margin"
        return ""


NO_GUARD = FalseNegatives(with_answer=False, same_text=False, margin=0.0)


def without_false_negatives(
    request: RankRequest,
    groups: Sequence[PreferenceGroup],
    fused: Mapping[str, float],
    guard: FalseNegatives,
    counts: Counter[str],
) -> list[PreferenceGroup]:
    """The groups without the negatives that the guard takes for positives; a group that keeps none is dropped.

    Args:
        request: The question and its candidates.
        groups: Its preference groups.
        fused: The fused score of each candidate, by passage id.
        guard: What is left out.
        counts: Gets one more for each negative left out, by reason, and for each ``group dropped``.
    """
    passages = {passage.id: passage for passage in request.candidates}
    kept = []
    for group in groups:
        negatives = []
        for one in group.negatives:
            gap = fused[group.positive] - fused[one]
            reason = guard.reason(request, passages[group.positive], passages[one], gap)
            if reason:
                counts[reason] += 1
            else:
                negatives.append(one)
        if negatives:
            kept.append(PreferenceGroup(group.positive, tuple(negatives)))
        else:
            counts["group dropped"] += 1
    return kept


def rationale_problem(rationale: str, answers: Sequence[str], *, tokens: int = 0, window: int | None = None) -> str:
    """What makes a rationale useless as a guide; empty where it is fine.

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
    if not rationale.strip():
        return "empty"
    if _REFUSAL.search(rationale[:_REFUSAL_WITHIN].replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")):
        return "refusal"
    if _loops(rationale):
        return "repetition"
    named = telling(answers)
    if named and not any(_names(rationale, answer) for answer in named):
        return "answer missing"
    if window is not None and tokens > window:
        return "longer than the encoder's window"
    return ""


def _names(rationale: str, answer: str) -> bool:
    if contains_answer(rationale, [answer]):
        return True
    words = set(normalize_answer(answer).split())
    return len(words) > 2 and len(words & set(normalize_answer(rationale).split())) >= _ANSWER_SHARE * len(words)


def _loops(text: str) -> bool:
    """Whether the text repeats itself: one run of words makes up most of it."""
    words = normalize_answer(text).split()
    if len(set(words)) == 1:
        return len(words) >= _LOOP_TIMES
    runs = Counter(tuple(words[i : i + _LOOP_WORDS]) for i in range(len(words) - _LOOP_WORDS + 1))
    repeated = sum(count for count in runs.values() if count >= _LOOP_TIMES)
    return repeated > sum(runs.values()) / 2
