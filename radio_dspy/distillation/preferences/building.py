"""From questions to training groups: retrieval, signals, fusion and sampling, joined by id."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.passages import Passage, Ranking, RankRequest, best_first
from radio_dspy.core.redaction import logger_of
from radio_dspy.core.text import telling
from radio_dspy.distillation.preferences.groups import DEPTH, PreferenceGroup, preference_groups
from radio_dspy.distillation.preferences.guards import NO_GUARD, FalseNegatives, without_false_negatives
from radio_dspy.distillation.preferences.settings import PreferenceSettings
from radio_dspy.retrievers.requests import _repeats

if TYPE_CHECKING:
    from radio_dspy.distillation.preferences.groups import TextGroup

logger = logger_of(__name__)


@dataclass(frozen=True, slots=True)
class QuestionGroup:
    """A preference group with its question, as it is kept in ``groups.jsonl``.

    Attributes:
        request: The question and its candidates.
        group: The preference, by passage id.
        scores: The teacher's scores of the positive and of each negative.
        random: Further negatives from anywhere in the corpus; they score 0, like the last candidate.
        checked: Whether in-batch negatives are checked for the answer, too.
    """

    request: RankRequest
    group: PreferenceGroup
    scores: tuple[float, ...]
    random: tuple[Passage, ...] = ()
    checked: bool = True

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON types."""
        return {
            "id": self.request.id,
            "query": self.request.query,
            "positive": self.group.positive,
            "negatives": list(self.group.negatives),
            "random": [passage.id for passage in self.random],
            "scores": [round(score, 6) for score in self._all_scores()],
        }

    def texts(self) -> TextGroup:
        """The group with its texts, ready to train on."""
        from radio_dspy.distillation.preferences.groups import TextGroup

        contents = {passage.id: passage.contents for passage in self.request.candidates}
        negatives = tuple(contents[one] for one in self.group.negatives)
        return TextGroup(
            self.request.query,
            contents[self.group.positive],
            (*negatives, *(passage.contents for passage in self.random)),
            self._all_scores(),
            tuple(telling(self.request.answers)) if self.checked else (),
        )

    def _all_scores(self) -> tuple[float, ...]:
        return self.scores + (0.0,) * len(self.random)


def build_groups(
    requests: Sequence[RankRequest],
    rankings: Iterable[Ranking],
    settings: PreferenceSettings | None = None,
    *,
    corpus: Sequence[Passage] = (),
    seed: int = 42,
) -> tuple[list[QuestionGroup], dict[str, int]]:
    """Sample the preference groups of every question, in the questions' order.

    Args:
        requests: Questions with their candidates.
        rankings: The teacher's ranking of each, of which only one is held; see ``each_fused_ranking``.
        settings: How groups are made; None takes the defaults.
        corpus: Where random negatives come from.
        seed: Decides the random negatives.

    Returns:
        The groups, and what was left out, by reason: negatives by the guard, groups of which nothing stayed, and
        questions on which the teacher is unsure.

    Raises:
        SettingsError: If random negatives are asked for and there is no corpus to draw from.
    """
    settings = settings or PreferenceSettings()
    if settings.random_negatives and not corpus:
        raise SettingsError("random_negatives needs a corpus: give RADIO(retriever=...) one that has `passages`.")
    made = []
    gaps = []
    for request, ranking in zip(requests, rankings, strict=True):
        made.append(_groups_of(request, ranking, settings, corpus, seed))
        gaps.append(ranking.scores[0] - ranking.scores[1] if len(ranking) > 1 else 0.0)
    kept = math.ceil(settings.confident_share * len(gaps))
    confident = sorted(best_first(gaps)[:kept])  # ties go to the earlier question
    left_out = Counter({"unsure question": len(gaps) - len(confident)})
    for position in confident:
        left_out.update(made[position][1])
    return [group for position in confident for group in made[position][0]], dict(+left_out)


def _groups_of(
    request: RankRequest, ranking: Ranking, settings: PreferenceSettings, corpus: Sequence[Passage], seed: int
) -> tuple[list[QuestionGroup], Counter[str]]:
    """The groups of one question, and what was left out."""
    left_out: Counter[str] = Counter()
    guard = settings.false_negatives or NO_GUARD
    fused = dict(zip(ranking.ids, ranking.scores, strict=True))
    sampled = preference_groups(
        ranking, settings.sampling or "shift", settings.depth or DEPTH, negative_range=settings.negative_range
    )
    sampled = without_false_negatives(request, sampled, fused, guard, left_out)
    groups = []
    for number, group in enumerate(sampled):
        drawn = (
            _draw(request, corpus, settings.random_negatives, guard, group, f"{seed}-{request.id}-{number}", left_out)
            if settings.random_negatives
            else ()
        )
        scores = tuple(fused[one] for one in (group.positive, *group.negatives))
        groups.append(QuestionGroup(request, group, scores, drawn, guard.with_answer))
    return groups, left_out


def _draw(
    request: RankRequest,
    corpus: Sequence[Passage],
    count: int,
    guard: FalseNegatives,
    group: PreferenceGroup,
    seed: str,
    left_out: Counter[str],
) -> tuple[Passage, ...]:
    """Random negatives of a group: not among the candidates, and none that the guard leaves out."""
    known = {passage.id for passage in request.candidates}
    drawn = random.Random(seed).sample(corpus, min(len(corpus), count))
    kept = [one for one in drawn if one.id not in known | request.copies and not _repeats(one, request.query)]
    best = next(passage for passage in request.candidates if passage.id == group.positive)
    reasons = [guard.reason(request, best, passage, 1.0) for passage in kept]
    left_out.update(filter(None, reasons))
    return tuple(passage for passage, reason in zip(kept, reasons, strict=True) if not reason)
