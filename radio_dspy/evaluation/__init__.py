"""Metrics of answers and rankings, and how sure their differences are."""

from typing import TYPE_CHECKING

from radio_dspy.core.lazy import lazy_module

if TYPE_CHECKING:
    from radio_dspy.evaluation.relevance import METRICS as METRICS
    from radio_dspy.evaluation.relevance import Judgement as Judgement
    from radio_dspy.evaluation.relevance import answer_each as answer_each
    from radio_dspy.evaluation.relevance import answer_metrics as answer_metrics
    from radio_dspy.evaluation.relevance import compare as compare
    from radio_dspy.evaluation.relevance import compare_each as compare_each
    from radio_dspy.evaluation.relevance import judge as judge

_HOMES = {
    "Judgement": "radio_dspy.evaluation.relevance",
    "METRICS": "radio_dspy.evaluation.relevance",
    "answer_each": "radio_dspy.evaluation.relevance",
    "answer_metrics": "radio_dspy.evaluation.relevance",
    "compare": "radio_dspy.evaluation.relevance",
    "compare_each": "radio_dspy.evaluation.relevance",
    "judge": "radio_dspy.evaluation.relevance",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_module(__name__, _HOMES)
