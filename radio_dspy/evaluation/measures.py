"""Measures of rankings by their names: those of ir-measures, and short ones for the usual three."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.redaction import told

_STEPS = 1000  # of a grade that is no whole number, which trec_eval's measures need


@functools.lru_cache(maxsize=64)
def measure_of(name: str) -> Any:
    """The measure of a name: ``nDCG@20``, ``P(rel=2)@5``, ``AP`` and so on, or ``ndcg@K``, ``recall@K`` and ``mrr``.

    Raises:
        SettingsError: For a name that is none, and for a measure that no installed package computes.

    Example:
        >>> measure_of("ndcg@10") == measure_of("nDCG@10"), measure_of("P(rel=2)@5")
        (True, P(rel=2)@5)
    """
    import ir_measures

    base, _, cutoff = name.partition("@")
    usual = {"ndcg": ir_measures.nDCG, "recall": ir_measures.R}.get(base)
    try:
        if name == "mrr":
            return ir_measures.RR
        if usual is not None and cutoff.isdecimal() and int(cutoff) > 0:
            return usual @ int(cutoff)
        found = ir_measures.parse_measure(name)
        supported = ir_measures.DefaultPipeline.supports(found)
    except Exception as error:  # ir-measures', of many kinds
        raise SettingsError(
            f"Unknown measure {name!r:.60} ({told(error)}); give a name of ir-measures, such as nDCG@10, RR@10, AP, "
            "R@5 or P(rel=2)@5."
        ) from error
    if not supported:
        raise SettingsError(f"No package that is installed computes {name!r:.60}; see ir-measures' list of providers.")
    return found


def shown_measure(name: str) -> str:
    """A measure's name for people.

    Example:
        >>> shown_measure("ndcg@10"), shown_measure("recall@5"), shown_measure("AP")
        ('nDCG@10', 'recall@5', 'AP')
    """
    return name.replace("ndcg@", "nDCG@") if name.startswith("ndcg@") else name


def whole_gains(grades: Mapping[str, float]) -> dict[str, int]:
    """Grades as whole numbers, which trec_eval's measures need; shares of one in thousandths.

    nDCG is the same for both. A measure with a least grade of its own, such as ``P(rel=2)@5``, is for whole grades.

    Example:
        >>> whole_gains({"a": 2.0, "b": 0}), whole_gains({"a": 0.5, "b": 1})
        ({'a': 2, 'b': 0}, {'a': 500, 'b': 1000})
    """
    whole = all(float(one).is_integer() for one in grades.values())
    steps = 1 if whole else _STEPS
    # What is relevant at all stays so.
    return {key: max(round(steps * one), 1) if one > 0 else round(steps * one) for key, one in grades.items()}
