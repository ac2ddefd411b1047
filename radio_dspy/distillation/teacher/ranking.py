"""The teacher's ranking of every question's candidates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from radio_dspy.core.rankings import Ranking, RankRequest
from radio_dspy.distillation.teacher.fusion import fused_ranking
from radio_dspy.distillation.teacher.null_passage import check_null, with_null
from radio_dspy.distillation.teacher.signals import Signal, check_signals, score_all


def fused_rankings(
    requests: Sequence[RankRequest], signals: Mapping[Signal, float], *, null_passage: bool = False
) -> list[Ranking]:
    """Score and fuse: the teacher's ranking of every question's candidates, and of the null passage if it takes part.

    Raises:
        DataError: If a signal gives a score that is not a finite number; question and passage are named.
        SettingsError: If one is no signal; if the null passage is to take part, and no signal can score it.
    """
    return list(each_fused_ranking(requests, signals, null_passage=null_passage))


def each_fused_ranking(
    requests: Sequence[RankRequest], signals: Mapping[Signal, float], *, null_passage: bool = False
) -> Iterator[Ranking]:
    """As ``fused_rankings``, one after the other: of many questions they would take more memory than training does."""
    check_signals(signals)
    weights = {signal.name: weight for signal, weight in signals.items()}
    if null_passage:
        check_null(signals)
    found = score_all(list(signals), requests, null_passage=null_passage)
    for request, scores in zip(requests, found, strict=True):
        yield fused_ranking(with_null(request) if null_passage else request, scores, weights)
