"""Rationales: extraction, writing in bulk, checks."""

from typing import TYPE_CHECKING

from radio_dspy.core.lazy import lazy_module

if TYPE_CHECKING:
    from radio_dspy.distillation.rationales.asking import Question as Question
    from radio_dspy.distillation.rationales.asking import RationaleRecord as RationaleRecord
    from radio_dspy.distillation.rationales.asking import write_rationales as write_rationales
    from radio_dspy.distillation.rationales.writing import RationaleCounts as RationaleCounts
    from radio_dspy.distillation.rationales.writing import explain as explain
    from radio_dspy.distillation.rationales.writing import fitting_records as fitting_records

_HOMES = {
    "Question": "radio_dspy.distillation.rationales.asking",
    "RationaleCounts": "radio_dspy.distillation.rationales.writing",
    "RationaleRecord": "radio_dspy.distillation.rationales.asking",
    "explain": "radio_dspy.distillation.rationales.writing",
    "fitting_records": "radio_dspy.distillation.rationales.writing",
    "write_rationales": "radio_dspy.distillation.rationales.asking",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_module(__name__, _HOMES)
