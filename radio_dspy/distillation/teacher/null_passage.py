"""The null passage among a question's candidates: an empty context, against which the others are preferred or not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.passages import NULL_PASSAGE
from radio_dspy.core.rankings import Ranking, RankRequest


def with_null(request: RankRequest) -> RankRequest:
    """The question with the null passage as its last candidate."""
    if request.candidates[-1:] == (NULL_PASSAGE,):
        return request
    return replace(request, candidates=(*request.candidates, NULL_PASSAGE), scores=(*request.scores, 0.0))


def without_null(request: RankRequest) -> RankRequest:
    """The question without the null passage; the same object where it has none."""
    if request.candidates[-1:] != (NULL_PASSAGE,):
        return request
    return replace(request, candidates=request.candidates[:-1], scores=tuple(request.scores)[:-1])


def bare(ranking: Ranking) -> Ranking:
    """A ranking without the null passage."""
    kept = [row for row, one in enumerate(ranking.passages) if one.id != NULL_PASSAGE.id]
    return Ranking(
        ranking.query, tuple(ranking.passages[row] for row in kept), tuple(ranking.scores[row] for row in kept)
    )


def reads_null(signal: object) -> bool:
    """Whether a signal can score the null passage; for the others it lies at the mean of the candidates."""
    return bool(getattr(signal, "reads_null", False))


def check_null(signals: Iterable[object] | None) -> None:
    """See that a teacher can tell a passage that helps from none.

    Raises:
        SettingsError: If none of its signals can.
    """
    if not any(map(reads_null, signals or ())):
        raise SettingsError(
            "null_passage=True needs a signal that knows what the LM does without any passage: give signals= with "
            "AnswerGain, AnswerLikelihood, AnswerCorrectness or SetGain."
        )
