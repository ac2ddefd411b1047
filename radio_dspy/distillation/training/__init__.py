"""Fine-tuning on preference groups."""

from typing import TYPE_CHECKING

from radio_dspy.core.lazy import lazy_module

if TYPE_CHECKING:
    from radio_dspy.distillation.preferences.groups import PreferenceGroup as PreferenceGroup
    from radio_dspy.distillation.training.loop import MAX_GRADIENT_NORM as MAX_GRADIENT_NORM
    from radio_dspy.distillation.training.loop import TrainingResult as TrainingResult
    from radio_dspy.distillation.training.loop import open_optimizer as open_optimizer
    from radio_dspy.distillation.training.loop import planned_updates as planned_updates
    from radio_dspy.distillation.training.loop import reading_at_most as reading_at_most
    from radio_dspy.distillation.training.loop import train_reranker as train_reranker

_HOMES = {
    "MAX_GRADIENT_NORM": "radio_dspy.distillation.training.loop",
    "PreferenceGroup": "radio_dspy.distillation.preferences.groups",
    "TrainingResult": "radio_dspy.distillation.training.loop",
    "open_optimizer": "radio_dspy.distillation.training.loop",
    "planned_updates": "radio_dspy.distillation.training.loop",
    "reading_at_most": "radio_dspy.distillation.training.loop",
    "train_reranker": "radio_dspy.distillation.training.loop",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_module(__name__, _HOMES)
