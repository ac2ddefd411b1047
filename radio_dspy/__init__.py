"""Align the reranker of a DSPy RAG program with the LM that has to answer.

Every name is loaded when it is first used: ``import radio_dspy`` brings in neither torch nor transformers nor LiteLLM.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from radio_dspy.adapters import PlainAdapter as PlainAdapter
    from radio_dspy.comparison import Comparison as Comparison
    from radio_dspy.comparison import compare_programs as compare_programs
    from radio_dspy.datasets import load_corpus as load_corpus
    from radio_dspy.datasets import load_questions as load_questions
    from radio_dspy.distillation.extractor import RationaleExtractor as RationaleExtractor
    from radio_dspy.distillation.gate import Gate as Gate
    from radio_dspy.distillation.guards import FalseNegatives as FalseNegatives
    from radio_dspy.distillation.settings import LoraSettings as LoraSettings
    from radio_dspy.distillation.settings import TrainingSettings as TrainingSettings
    from radio_dspy.embeddings import RemoteEncoder as RemoteEncoder
    from radio_dspy.encoders import Encoder as Encoder
    from radio_dspy.errors import RadioError as RadioError
    from radio_dspy.exporting import export as export
    from radio_dspy.flagembedding import load_groups as load_groups
    from radio_dspy.flagembedding import write_groups as write_groups
    from radio_dspy.hub import push_to_hub as push_to_hub
    from radio_dspy.lms import local_lm as local_lm
    from radio_dspy.model_files import weights as weights
    from radio_dspy.optimizers.group_finetune import GroupFinetune as GroupFinetune
    from radio_dspy.optimizers.presets import hosted_preset as hosted_preset
    from radio_dspy.optimizers.presets import local_preset as local_preset
    from radio_dspy.optimizers.radio import RADIO as RADIO
    from radio_dspy.passages import Passage as Passage
    from radio_dspy.passages import Ranking as Ranking
    from radio_dspy.passages import RankRequest as RankRequest
    from radio_dspy.programs.multi_hop import MultiHop as MultiHop
    from radio_dspy.programs.multiple_choice import MultipleChoice as MultipleChoice
    from radio_dspy.programs.retrieve_rerank_answer import RetrieveRerankAnswer as RetrieveRerankAnswer
    from radio_dspy.reporting.writing import write_report as write_report
    from radio_dspy.rerankers.lm import LMRerank as LMRerank
    from radio_dspy.rerankers.rationale import RationaleRerank as RationaleRerank
    from radio_dspy.rerankers.remote import RemoteRerank as RemoteRerank
    from radio_dspy.rerankers.rerank import NoRerank as NoRerank
    from radio_dspy.rerankers.rerank import Rerank as Rerank
    from radio_dspy.retrievers.aligned import aligned_retriever as aligned_retriever
    from radio_dspy.retrievers.faiss import FaissRetriever as FaissRetriever
    from radio_dspy.saving import load as load
    from radio_dspy.saving import save as save
    from radio_dspy.signatures import ChooseOption as ChooseOption
    from radio_dspy.signatures import ExtractRationale as ExtractRationale
    from radio_dspy.signatures import GenerateAnswer as GenerateAnswer
    from radio_dspy.signatures import NextQuery as NextQuery
    from radio_dspy.signatures import RationaleGuidedRerank as RationaleGuidedRerank
    from radio_dspy.streaming import PlainStreamListener as PlainStreamListener

__version__ = "0.1.0"

_HOMES = {
    "ChooseOption": "signatures",
    "Comparison": "comparison",
    "Encoder": "encoders",
    "ExtractRationale": "signatures",
    "FaissRetriever": "retrievers.faiss",
    "FalseNegatives": "distillation.guards",
    "Gate": "distillation.gate",
    "GenerateAnswer": "signatures",
    "GroupFinetune": "optimizers.group_finetune",
    "LMRerank": "rerankers.lm",
    "LoraSettings": "distillation.settings",
    "MultiHop": "programs.multi_hop",
    "MultipleChoice": "programs.multiple_choice",
    "NextQuery": "signatures",
    "NoRerank": "rerankers.rerank",
    "Passage": "passages",
    "PlainAdapter": "adapters",
    "PlainStreamListener": "streaming",
    "RADIO": "optimizers.radio",
    "RadioError": "errors",
    "RankRequest": "passages",
    "Ranking": "passages",
    "RationaleExtractor": "distillation.extractor",
    "RationaleGuidedRerank": "signatures",
    "RationaleRerank": "rerankers.rationale",
    "RemoteEncoder": "embeddings",
    "RemoteRerank": "rerankers.remote",
    "Rerank": "rerankers.rerank",
    "RetrieveRerankAnswer": "programs.retrieve_rerank_answer",
    "TrainingSettings": "distillation.settings",
    "aligned_retriever": "retrievers.aligned",
    "compare_programs": "comparison",
    "export": "exporting",
    "hosted_preset": "optimizers.presets",
    "load": "saving",
    "load_corpus": "datasets",
    "load_groups": "flagembedding",
    "load_questions": "datasets",
    "local_lm": "lms",
    "local_preset": "optimizers.presets",
    "push_to_hub": "hub",
    "save": "saving",
    "weights": "model_files",
    "write_groups": "flagembedding",
    "write_report": "reporting.writing",
}
_MODULES = (
    "datasets",
    "distillation",
    "evaluation",
    "lms",
    "metrics",
    "optimizers",
    "programs",
    "rerankers",
    "retrievers",
)
__all__ = ["__version__", *sorted(_HOMES), *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
