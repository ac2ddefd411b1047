"""Fine-tuning on preference groups."""

from typing import TYPE_CHECKING

from radio_dspy.core.lazy import lazy_module

if TYPE_CHECKING:
    from radio_dspy.distillation.preferences.groups import PreferenceGroup as PreferenceGroup
    from radio_dspy.distillation.training.reranker import TrainingResult as TrainingResult
    from radio_dspy.distillation.training.reranker import train_reranker as train_reranker
    from radio_dspy.distillation.training.trainer import RerankerTrainer as RerankerTrainer

_HOMES = {
    "PreferenceGroup": "radio_dspy.distillation.preferences.groups",
    "RerankerTrainer": "radio_dspy.distillation.training.trainer",
    "TrainingResult": "radio_dspy.distillation.training.reranker",
    "train_reranker": "radio_dspy.distillation.training.reranker",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_module(__name__, _HOMES)
