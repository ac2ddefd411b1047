"""The teacher's ranking of every question's candidates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from radio_dspy.core.errors import DataError
from radio_dspy.core.passages import Ranking, RankRequest
from radio_dspy.distillation.teacher.fusion import fused_ranking
from radio_dspy.distillation.teacher.signals import Signal, score_all


def fused_rankings(requests: Sequence[RankRequest], signals: Mapping[Signal, float]) -> list[Ranking]:
    """Score and fuse: the teacher's ranking of every question's candidates.

    Raises:
        DataError: If a signal gives a score that is not a finite number; question and passage are named.
    """
    return list(each_fused_ranking(requests, signals))


def each_fused_ranking(requests: Sequence[RankRequest], signals: Mapping[Signal, float]) -> Iterator[Ranking]:
    """As ``fused_rankings``, one after the other: of many questions they would take more memory than training does."""
    weights = {signal.name: weight for signal, weight in signals.items()}
    if len(weights) != len(signals):
        raise DataError(f"Signals must have different names, got {[signal.name for signal in signals]}.")
    for request, scores in zip(requests, score_all(list(signals), requests), strict=True):
        yield fused_ranking(request, scores, weights)
