"""From signals to a trained checkpoint: each step is a function or class that can be called alone.

Names are loaded when they are first used, so that fusing two lists does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from radio_dspy.distillation.alignment import align as align
    from radio_dspy.distillation.averaging import average_weights as average_weights
    from radio_dspy.distillation.averaging import mix_weights as mix_weights
    from radio_dspy.distillation.extractor import RationaleExtractor as RationaleExtractor
    from radio_dspy.distillation.fusion import fuse as fuse
    from radio_dspy.distillation.fusion import fused_ranking as fused_ranking
    from radio_dspy.distillation.fusion import min_max as min_max
    from radio_dspy.distillation.gate import Gate as Gate
    from radio_dspy.distillation.gate import decide as decide
    from radio_dspy.distillation.groups import PreferenceGroup as PreferenceGroup
    from radio_dspy.distillation.groups import preference_groups as preference_groups
    from radio_dspy.distillation.guards import FalseNegatives as FalseNegatives
    from radio_dspy.distillation.infonce import InfoNCE as InfoNCE
    from radio_dspy.distillation.listwise import ListwiseKL as ListwiseKL
    from radio_dspy.distillation.lm_signals import AnswerCorrectness as AnswerCorrectness
    from radio_dspy.distillation.lm_signals import AnswerLikelihood as AnswerLikelihood
    from radio_dspy.distillation.lm_signals import LMRanking as LMRanking
    from radio_dspy.distillation.margin import MarginInfoNCE as MarginInfoNCE
    from radio_dspy.distillation.observation import observe as observe
    from radio_dspy.distillation.preferences import GroupSettings as GroupSettings
    from radio_dspy.distillation.preferences import build_groups as build_groups
    from radio_dspy.distillation.preferences import each_fused_ranking as each_fused_ranking
    from radio_dspy.distillation.preferences import fused_rankings as fused_rankings
    from radio_dspy.distillation.reranker_signal import RerankerScore as RerankerScore
    from radio_dspy.distillation.settings import LoraSettings as LoraSettings
    from radio_dspy.distillation.settings import TrainingSettings as TrainingSettings
    from radio_dspy.distillation.signals import AnswerContainment as AnswerContainment
    from radio_dspy.distillation.signals import AnswerSimilarity as AnswerSimilarity
    from radio_dspy.distillation.signals import Labels as Labels
    from radio_dspy.distillation.signals import RationaleSimilarity as RationaleSimilarity
    from radio_dspy.distillation.signals import RetrievalScore as RetrievalScore
    from radio_dspy.distillation.training import TextGroup as TextGroup
    from radio_dspy.distillation.training import train_reranker as train_reranker

_HOMES = {
    "AnswerContainment": "signals",
    "AnswerCorrectness": "lm_signals",
    "AnswerLikelihood": "lm_signals",
    "AnswerSimilarity": "signals",
    "FalseNegatives": "guards",
    "Gate": "gate",
    "GroupSettings": "preferences",
    "InfoNCE": "infonce",
    "LMRanking": "lm_signals",
    "Labels": "signals",
    "ListwiseKL": "listwise",
    "LoraSettings": "settings",
    "MarginInfoNCE": "margin",
    "PreferenceGroup": "groups",
    "RationaleExtractor": "extractor",
    "RationaleSimilarity": "signals",
    "RerankerScore": "reranker_signal",
    "RetrievalScore": "signals",
    "TextGroup": "training",
    "TrainingSettings": "settings",
    "align": "alignment",
    "average_weights": "averaging",
    "build_groups": "preferences",
    "decide": "gate",
    "fuse": "fusion",
    "fused_ranking": "fusion",
    "each_fused_ranking": "preferences",
    "fused_rankings": "preferences",
    "min_max": "fusion",
    "mix_weights": "averaging",
    "observe": "observation",
    "preference_groups": "groups",
    "train_reranker": "training",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
