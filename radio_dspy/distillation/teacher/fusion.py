"""Fusing signals into one preference (paper, section 3.3, "integration")."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from radio_dspy.core.errors import DataError
from radio_dspy.core.rankings import Ranking, RankRequest
from radio_dspy.core.validation import finite_scores, shown


def min_max(scores: Sequence[float]) -> list[float]:
    """Scale scores linearly to [0, 1].

    Where all scores are equal the signal prefers nothing, and every value is 0.

    Raises:
        DataError: If a score is NaN or infinite.

    Example:
        >>> min_max([3.0, 1.0, 2.0]), min_max([5.0, 5.0])
        ([1.0, 0.0, 0.5], [0.0, 0.0])
    """
    values = finite_scores(scores, "Scores")
    if not values:
        return []
    low, high = min(values), max(values)
    span = high - low
    if not math.isfinite(span):  # the span of two finite numbers can overflow: halve them first
        return min_max([value / 2 for value in values])
    return [(value - low) / span if span else 0.0 for value in values]


def fuse(signals: Mapping[str, Sequence[float]], weights: Mapping[str, float]) -> list[float]:
    """Mix the signals of one question: the weighted sum of their min-max scaled scores.

    Args:
        signals: For each signal, one score for each candidate, all in the candidates' order.
        weights: For each signal its weight, at least 0; names must match ``signals``.

    Returns:
        One fused score for each candidate, in their order.

    Raises:
        DataError: If names or lengths do not match, a weight is negative, or a score is not finite.

    Example:
        >>> fuse({"retrieval": [0.9, 0.5, 0.1], "rationale": [0.2, 0.8, 0.2]}, {"retrieval": 0.5, "rationale": 0.5})
        [0.5, 0.75, 0.0]
    """
    if not isinstance(signals, Mapping) or not isinstance(weights, Mapping):
        raise DataError(
            f"Signals and weights go by name: give a dict of each, got {type(signals).__name__} and "
            f"{type(weights).__name__}."
        )
    if odd := [one for one in (*signals, *weights) if not isinstance(one, str)]:
        raise DataError(f"A signal is named {shown(odd[0])}; names are strings.")
    if not signals:
        raise DataError("Nothing to fuse: give at least one signal.")
    if set(signals) != set(weights):
        raise DataError(f"Signals {sorted(signals)} and weights {sorted(weights)} must have the same names.")
    signals = {name: finite_scores(scores, f"Signal {name!r}") for name, scores in signals.items()}
    lengths = {name: len(scores) for name, scores in signals.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"All signals must score the same candidates, got lengths {lengths}.")
    fused = [0.0] * next(iter(lengths.values()))
    # In the order of names, so that the sum does not depend on the order of the keys.
    for name in sorted(signals):
        finite = _is_finite(weights[name])
        weight = float(weights[name]) if finite else math.nan
        if not weight >= 0:
            told = weight if finite else shown(weights[name])
            raise DataError(f"The weight of signal {name!r} is {told}; weights must be finite and at least 0.")
        for position, value in enumerate(min_max(signals[name])):
            fused[position] += weight * value
    return finite_scores(fused, "Fused by weights whose sum is too large")


def _is_finite(value: Any) -> bool:
    """Whether a value is a number that a float can hold; ``math.isfinite`` fails on larger whole numbers."""
    number: Any = value if isinstance(value, Real) else math.nan
    return bool(abs(number) <= sys.float_info.max)


def fused_ranking(
    request: RankRequest, signals: Mapping[str, Sequence[float]], weights: Mapping[str, float]
) -> Ranking:
    """Order a question's candidates by their fused score; equal scores keep the first stage's order.

    Raises:
        DataError: As for ``fuse``, naming the question and, for a bad score, the passage.
    """
    for name, scores in signals.items():
        if not hasattr(scores, "__len__"):
            raise DataError(f"Question {request.id!r}: signal {name!r} needs a list of scores, got {shown(scores)}.")
        if len(scores) != len(request.candidates):
            raise DataError(
                f"Question {request.id!r}: signal {name!r} has {len(scores)} scores "
                f"for {len(request.candidates)} candidates."
            )
        for passage, score in zip(request.candidates, scores, strict=True):
            if not _is_finite(score):
                raise DataError(
                    f"Question {request.id!r}, passage {passage.id!r}: signal {name!r} scored {shown(score)}."
                )
    return Ranking.from_scores(request.query, request.candidates, fuse(signals, weights))
