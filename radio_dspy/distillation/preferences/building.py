"""From questions to training groups: retrieval, signals, fusion and sampling, joined by id."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.passages import NULL_PASSAGE, Passage
from radio_dspy.core.rankings import Ranking, RankRequest, best_first
from radio_dspy.core.text import telling
from radio_dspy.distillation.preferences.groups import PreferenceGroup
from radio_dspy.distillation.preferences.guards import (
    NO_GUARD,
    FalseNegatives,
    Verdicts,
    without_false_negatives,
)
from radio_dspy.distillation.preferences.relabelling import judged
from radio_dspy.distillation.preferences.sampling import DEPTH, Sampled, preference_groups, with_null_groups
from radio_dspy.distillation.preferences.settings import PreferenceSettings
from radio_dspy.distillation.teacher.null_passage import bare
from radio_dspy.retrievers.requests import _repeats
from radio_dspy.runs.run import Run


def build_groups(
    requests: Sequence[RankRequest],
    rankings: Iterable[Ranking],
    settings: PreferenceSettings | None = None,
    *,
    corpus: Sequence[Passage] = (),
    seed: int = 42,
    run: Run | None = None,
    num_threads: int = 1,
) -> tuple[list[PreferenceGroup], dict[str, int]]:
    """Sample the preference groups of every question, in the questions' order.

    Args:
        requests: Questions with their candidates.
        rankings: The teacher's ranking of each, of which only one is held; see ``each_fused_ranking``. With
            ``null_passage`` the null passage is in each.
        settings: How groups are made; None takes the defaults.
        corpus: Where random negatives come from.
        seed: Decides the random negatives.
        run: Keeps what ``FalseNegatives(relabel=)`` asks its LM.
        num_threads: Calls of that LM in flight at the same time.

    Returns:
        The groups, and what was left out, by reason: negatives by the guard, groups of which nothing stayed, and
        questions on which the teacher is unsure.

    Raises:
        SettingsError: If random negatives are asked for and there is no corpus to draw from.
    """
    settings = settings or PreferenceSettings()
    if settings.random_negatives and not corpus:
        raise SettingsError("random_negatives needs a corpus: give RADIO(retriever=...) one that has `passages`.")
    guard = settings.false_negatives or NO_GUARD
    verdicts: list[Verdicts] = [{}] * len(requests)
    if guard.relabel is not None:
        rankings = list(rankings)
        pairs = [_sampled(one, settings) for one in rankings]
        groups, fused = [one for one, _ in pairs], [scores for _, scores in pairs]
        verdicts = judged(requests, groups, fused, guard, run=run, num_threads=num_threads)
    made = []
    gaps = []
    for request, ranking, known in zip(requests, rankings, verdicts, strict=True):
        made.append(_groups_of(request, ranking, settings, corpus, seed, known))
        first = bare(ranking).scores[:2]
        gaps.append(first[0] - first[1] if len(first) > 1 else 0.0)
    kept = math.ceil(settings.confident_share * len(gaps))
    confident = sorted(best_first(gaps)[:kept])  # ties go to the earlier question
    left_out = Counter({"unsure question": len(gaps) - len(confident)})
    for position in confident:
        left_out.update(made[position][1])
    return [group for position in confident for group in made[position][0]], dict(+left_out)


def _sampled(ranking: Ranking, settings: PreferenceSettings) -> tuple[list[Sampled], dict[str, float]]:
    """The groups of one question before any guard, and the fused scores by passage id."""
    fused = dict(zip(ranking.ids, ranking.scores, strict=True))
    sampling = settings.sampling or "shift"
    sampled = preference_groups(
        bare(ranking), sampling, settings.depth or DEPTH, negative_range=settings.negative_range
    )
    if settings.null_passage:
        sampled = with_null_groups(sampled, fused, listwise=sampling == "all")
    return sampled, fused


def _groups_of(
    request: RankRequest,
    ranking: Ranking,
    settings: PreferenceSettings,
    corpus: Sequence[Passage],
    seed: int,
    verdicts: Verdicts,
) -> tuple[list[PreferenceGroup], Counter[str]]:
    """The groups of one question, and what was left out."""
    left_out: Counter[str] = Counter()
    guard = settings.false_negatives or NO_GUARD
    sampled, fused = _sampled(ranking, settings)
    sampled = without_false_negatives(request, sampled, fused, guard, left_out, verdicts)
    passages = {passage.id: passage for passage in (*request.candidates, NULL_PASSAGE)}
    answers = tuple(telling(request.answers)) if guard.with_answer else ()
    groups = []
    for number, (positive, ids) in enumerate(sampled):
        negatives = [passages[one] for one in ids]
        drawn = []
        if settings.random_negatives:
            rng = random.Random(f"{seed}-{request.id}-{number}")
            drawn = _draw(request, corpus, settings.random_negatives, guard, passages[positive], rng, left_out)
        groups.append(
            PreferenceGroup(
                request.query,
                passages[positive].contents,
                tuple(passage.contents for passage in (*negatives, *drawn)),
                (
                    *(fused[one] for one in (positive, *ids)),
                    *[0.0] * len(drawn),
                ),  # random ones: like the last candidate
                answers,
                request.id,
                (positive, *ids, *(passage.id for passage in drawn)),
                len(drawn),
            )
        )
    return groups, left_out


def _draw(
    request: RankRequest,
    corpus: Sequence[Passage],
    count: int,
    guard: FalseNegatives,
    positive: Passage,
    rng: random.Random,
    left_out: Counter[str],
) -> list[Passage]:
    """Random negatives of a group: not among the candidates, and none that the guard leaves out."""
    known = {passage.id for passage in request.candidates} | request.copies
    kept = []
    for one in rng.sample(corpus, min(len(corpus), count)):
        if one.id in known or _repeats(one, request.query):
            continue
        if reason := guard.reason(request, positive, one, 1.0):
            left_out[reason] += 1
        else:
            kept.append(one)
    return kept
