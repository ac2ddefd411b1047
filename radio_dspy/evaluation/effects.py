"""Count the questions that a change helped or hurt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, TypeVar, get_args

from radio_dspy.evaluation.relevance import METRICS

K = TypeVar("K")
Effect = Literal["helped", "hurt", "unchanged"]
MOVED: tuple[Effect, ...] = ("helped", "hurt")
MAIN_METRIC = METRICS[0]
_ROUNDING = 1e-9  # of a metric: less is no change


def effect_of(change: float) -> Effect:
    """``helped``, ``hurt`` or ``unchanged``."""
    return "unchanged" if abs(change) <= _ROUNDING else "helped" if change > 0 else "hurt"


def count_effects(changes: Iterable[float]) -> dict[str, int]:
    """How many changes are of each effect."""
    found = [effect_of(change) for change in changes]
    return {effect: found.count(effect) for effect in get_args(Effect)}


def most_changed(changes: Mapping[K, float], effect: Effect) -> list[K]:
    """The keys of all changes of one effect, the largest change first; of equal ones the earlier key.

    Example:
        >>> most_changed({"a": -0.1, "b": 0.3, "c": -0.5}, "hurt")
        ['c', 'a']
    """
    return sorted((key for key, one in changes.items() if effect_of(one) == effect), key=lambda key: -abs(changes[key]))
