"""Run folders: journal, lock, state and what makes a record valid again."""

from typing import TYPE_CHECKING

from radio_dspy.core.lazy import lazy_module

if TYPE_CHECKING:
    from radio_dspy.runs.run import BOUGHT as BOUGHT
    from radio_dspy.runs.run import STAGES as STAGES
    from radio_dspy.runs.run import Run as Run

_HOMES = {
    "BOUGHT": "radio_dspy.runs.run",
    "Run": "radio_dspy.runs.run",
    "STAGES": "radio_dspy.runs.run",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_module(__name__, _HOMES)
