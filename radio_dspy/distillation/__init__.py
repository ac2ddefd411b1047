"""From signals to a trained checkpoint: each step is a function or class that can be called alone.

Names are loaded when they are first used, so that fusing two lists does not import torch.
"""

from typing import TYPE_CHECKING

from radio_dspy.core.lazy import lazy_module

if TYPE_CHECKING:
    from radio_dspy.distillation.candidates.observing import observe as observe
    from radio_dspy.distillation.gate.decision import Gate as Gate
    from radio_dspy.distillation.gate.decision import decide as decide
    from radio_dspy.distillation.losses import InfoNCE as InfoNCE
    from radio_dspy.distillation.losses import ListwiseKL as ListwiseKL
    from radio_dspy.distillation.losses import MarginInfoNCE as MarginInfoNCE
    from radio_dspy.distillation.preferences.building import build_groups as build_groups
    from radio_dspy.distillation.preferences.groups import PreferenceGroup as PreferenceGroup
    from radio_dspy.distillation.preferences.guards import FalseNegatives as FalseNegatives
    from radio_dspy.distillation.preferences.sampling import preference_groups as preference_groups
    from radio_dspy.distillation.preferences.settings import PreferenceSettings as PreferenceSettings
    from radio_dspy.distillation.rationales.extractor import RationaleExtractor as RationaleExtractor
    from radio_dspy.distillation.teacher.fusion import fuse as fuse
    from radio_dspy.distillation.teacher.fusion import fused_ranking as fused_ranking
    from radio_dspy.distillation.teacher.fusion import min_max as min_max
    from radio_dspy.distillation.teacher.gains import AnswerGain as AnswerGain
    from radio_dspy.distillation.teacher.gains import SetGain as SetGain
    from radio_dspy.distillation.teacher.lm_signals import AnswerCorrectness as AnswerCorrectness
    from radio_dspy.distillation.teacher.lm_signals import AnswerLikelihood as AnswerLikelihood
    from radio_dspy.distillation.teacher.lm_signals import LMRanking as LMRanking
    from radio_dspy.distillation.teacher.ranking import each_fused_ranking as each_fused_ranking
    from radio_dspy.distillation.teacher.ranking import fused_rankings as fused_rankings
    from radio_dspy.distillation.teacher.rationale_quality import RationaleQuality as RationaleQuality
    from radio_dspy.distillation.teacher.rationale_quality import rationale_quality as rationale_quality
    from radio_dspy.distillation.teacher.signals import AnswerContainment as AnswerContainment
    from radio_dspy.distillation.teacher.signals import AnswerSimilarity as AnswerSimilarity
    from radio_dspy.distillation.teacher.signals import Labels as Labels
    from radio_dspy.distillation.teacher.signals import RationaleSimilarity as RationaleSimilarity
    from radio_dspy.distillation.teacher.signals import RerankerScore as RerankerScore
    from radio_dspy.distillation.teacher.signals import RetrievalScore as RetrievalScore
    from radio_dspy.distillation.train_and_gate import align as align
    from radio_dspy.distillation.training.averaging import average_weights as average_weights
    from radio_dspy.distillation.training.averaging import mix_weights as mix_weights
    from radio_dspy.distillation.training.reranker import train_reranker as train_reranker
    from radio_dspy.distillation.training.settings import LoraSettings as LoraSettings
    from radio_dspy.distillation.training.settings import TrainingSettings as TrainingSettings

_HOMES = {
    "AnswerContainment": "radio_dspy.distillation.teacher.signals",
    "AnswerCorrectness": "radio_dspy.distillation.teacher.lm_signals",
    "AnswerGain": "radio_dspy.distillation.teacher.gains",
    "AnswerLikelihood": "radio_dspy.distillation.teacher.lm_signals",
    "AnswerSimilarity": "radio_dspy.distillation.teacher.signals",
    "FalseNegatives": "radio_dspy.distillation.preferences.guards",
    "Gate": "radio_dspy.distillation.gate.decision",
    "PreferenceSettings": "radio_dspy.distillation.preferences.settings",
    "InfoNCE": "radio_dspy.distillation.losses",
    "LMRanking": "radio_dspy.distillation.teacher.lm_signals",
    "Labels": "radio_dspy.distillation.teacher.signals",
    "ListwiseKL": "radio_dspy.distillation.losses",
    "LoraSettings": "radio_dspy.distillation.training.settings",
    "MarginInfoNCE": "radio_dspy.distillation.losses",
    "PreferenceGroup": "radio_dspy.distillation.preferences.groups",
    "RationaleExtractor": "radio_dspy.distillation.rationales.extractor",
    "RationaleQuality": "radio_dspy.distillation.teacher.rationale_quality",
    "RationaleSimilarity": "radio_dspy.distillation.teacher.signals",
    "RerankerScore": "radio_dspy.distillation.teacher.signals",
    "RetrievalScore": "radio_dspy.distillation.teacher.signals",
    "SetGain": "radio_dspy.distillation.teacher.gains",
    "TrainingSettings": "radio_dspy.distillation.training.settings",
    "align": "radio_dspy.distillation.train_and_gate",
    "average_weights": "radio_dspy.distillation.training.averaging",
    "build_groups": "radio_dspy.distillation.preferences.building",
    "decide": "radio_dspy.distillation.gate.decision",
    "fuse": "radio_dspy.distillation.teacher.fusion",
    "fused_ranking": "radio_dspy.distillation.teacher.fusion",
    "each_fused_ranking": "radio_dspy.distillation.teacher.ranking",
    "fused_rankings": "radio_dspy.distillation.teacher.ranking",
    "min_max": "radio_dspy.distillation.teacher.fusion",
    "mix_weights": "radio_dspy.distillation.training.averaging",
    "observe": "radio_dspy.distillation.candidates.observing",
    "preference_groups": "radio_dspy.distillation.preferences.sampling",
    "rationale_quality": "radio_dspy.distillation.teacher.rationale_quality",
    "train_reranker": "radio_dspy.distillation.training.reranker",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_module(__name__, _HOMES)
