"""Questions with answers for those who have none: made from documents, or taken from what a program was asked."""

from typing import TYPE_CHECKING

from radio_dspy.core.lazy import lazy_module

if TYPE_CHECKING:
    from radio_dspy.questions.making import MadeQuestions as MadeQuestions
    from radio_dspy.questions.making import make_questions as make_questions
    from radio_dspy.questions.traces import questions_from_traces as questions_from_traces

_HOMES = {
    "MadeQuestions": "radio_dspy.questions.making",
    "make_questions": "radio_dspy.questions.making",
    "questions_from_traces": "radio_dspy.questions.traces",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_module(__name__, _HOMES)
