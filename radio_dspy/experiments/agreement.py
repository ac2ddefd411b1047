"""How well an order of passages agrees with another view of which of them help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from radio_dspy.core.rankings import Ranking, RankRequest
from radio_dspy.evaluation.significance import interval

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from radio_dspy.distillation.teacher.signals import Scores

    Numbers = npt.NDArray[np.float64]


def agreement(rankings: Sequence[Ranking], requests: Sequence[RankRequest], scores: Sequence[Scores]) -> dict[str, Any]:
    """Compare rankings with scores of the same candidates, question by question.

    Args:
        rankings: One a question; a passage's place is its score there, so that equal scores are equal.
        requests: The questions.
        scores: For each question, one number a candidate, in the candidates' order.

    Returns:
        ``rank_correlation`` (Spearman's), ``of_the_first``: the score of the passage that the ranking puts first minus
        the mean over the candidates, and ``of_the_best``: the same of the highest score; each with its 95 % interval.
        ``each``: the correlation of every question, None where one side does not tell any two candidates apart.
    """
    import numpy as np

    each: list[float | None] = []
    first, best = [], []
    for ranking, request, own in zip(rankings, requests, scores, strict=True):
        given = dict(zip(ranking.ids, ranking.scores, strict=True))
        ids = [one.id for one in request.candidates]
        theirs = np.array([given[one] for one in ids])
        ours = np.asarray(own, dtype=np.float64)
        each.append(_spearman(theirs, ours))
        first.append(float(ours[ids.index(ranking.ids[0])] - ours.mean()))
        best.append(float(ours.max() - ours.mean()))
    known = [one for one in each if one is not None]
    return {
        "questions": len(known),
        "rank_correlation": list(interval(known)) if known else None,
        "of_the_first": list(interval(first)),
        "of_the_best": list(interval(best)),
        "each": each,
    }


def _spearman(one: Numbers, other: Numbers) -> float | None:
    import numpy as np
    from scipy.stats import spearmanr

    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(spearmanr(one, other).statistic)
