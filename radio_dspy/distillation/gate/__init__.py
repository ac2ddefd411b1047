"""The gate: is the trained reranker returned, or the base?"""

from typing import TYPE_CHECKING

from radio_dspy.core.lazy import lazy_module

if TYPE_CHECKING:
    from radio_dspy.distillation.gate.decision import Candidate as Candidate
    from radio_dspy.distillation.gate.decision import Decision as Decision
    from radio_dspy.distillation.gate.decision import Gate as Gate
    from radio_dspy.distillation.gate.decision import Judge as Judge
    from radio_dspy.distillation.gate.decision import as_gate as as_gate
    from radio_dspy.distillation.gate.decision import decide as decide
    from radio_dspy.distillation.gate.decision import pass_gate as pass_gate

_HOMES = {
    "Candidate": "radio_dspy.distillation.gate.decision",
    "Decision": "radio_dspy.distillation.gate.decision",
    "Gate": "radio_dspy.distillation.gate.decision",
    "Judge": "radio_dspy.distillation.gate.decision",
    "as_gate": "radio_dspy.distillation.gate.decision",
    "decide": "radio_dspy.distillation.gate.decision",
    "pass_gate": "radio_dspy.distillation.gate.decision",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_module(__name__, _HOMES)
