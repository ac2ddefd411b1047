"""Preference groups: sampling, guards, building."""

from typing import TYPE_CHECKING

from radio_dspy.core.lazy import lazy_module

if TYPE_CHECKING:
    from radio_dspy.distillation.preferences.building import build_groups as build_groups
    from radio_dspy.distillation.preferences.groups import PreferenceGroup as PreferenceGroup
    from radio_dspy.distillation.preferences.sampling import preference_groups as preference_groups
    from radio_dspy.distillation.preferences.settings import PreferenceSettings as PreferenceSettings
    from radio_dspy.distillation.teacher.ranking import each_fused_ranking as each_fused_ranking
    from radio_dspy.distillation.teacher.ranking import fused_rankings as fused_rankings
    from radio_dspy.retrievers.requests import distinct_questions as distinct_questions
    from radio_dspy.retrievers.requests import question_id as question_id
    from radio_dspy.retrievers.requests import rank_requests as rank_requests
    from radio_dspy.retrievers.requests import usable as usable
    from radio_dspy.retrievers.requests import without_question as without_question

_HOMES = {
    "PreferenceGroup": "radio_dspy.distillation.preferences.groups",
    "PreferenceSettings": "radio_dspy.distillation.preferences.settings",
    "build_groups": "radio_dspy.distillation.preferences.building",
    "distinct_questions": "radio_dspy.retrievers.requests",
    "each_fused_ranking": "radio_dspy.distillation.teacher.ranking",
    "fused_rankings": "radio_dspy.distillation.teacher.ranking",
    "preference_groups": "radio_dspy.distillation.preferences.sampling",
    "question_id": "radio_dspy.retrievers.requests",
    "rank_requests": "radio_dspy.retrievers.requests",
    "usable": "radio_dspy.retrievers.requests",
    "without_question": "radio_dspy.retrievers.requests",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_module(__name__, _HOMES)
