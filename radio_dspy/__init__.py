"""Align the reranker of a DSPy RAG program with the LM that has to answer.

Every name is loaded when it is first used: ``import radio_dspy`` brings in neither torch nor transformers nor LiteLLM.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from radio_dspy._version import __version__ as __version__
from radio_dspy.core.moved import install, is_moved

if TYPE_CHECKING:
    from radio_dspy.core.errors import RadioError as RadioError
    from radio_dspy.core.passages import Passage as Passage
    from radio_dspy.core.rankings import Ranking as Ranking
    from radio_dspy.core.rankings import RankRequest as RankRequest
    from radio_dspy.datasets.groups import load_groups as load_groups
    from radio_dspy.datasets.groups import write_groups as write_groups
    from radio_dspy.datasets.loading import load_corpus as load_corpus
    from radio_dspy.datasets.loading import load_questions as load_questions
    from radio_dspy.datasets.questions import write_questions as write_questions
    from radio_dspy.datasets.trec import load_qrels as load_qrels
    from radio_dspy.datasets.trec import load_run as load_run
    from radio_dspy.datasets.trec import write_qrels as write_qrels
    from radio_dspy.datasets.trec import write_run as write_run
    from radio_dspy.distillation.gate.decision import Gate as Gate
    from radio_dspy.distillation.preferences.guards import FalseNegatives as FalseNegatives
    from radio_dspy.distillation.preferences.settings import PreferenceSettings as PreferenceSettings
    from radio_dspy.distillation.rationales.extractor import RationaleExtractor as RationaleExtractor
    from radio_dspy.distillation.rationales.settings import RationaleSettings as RationaleSettings
    from radio_dspy.distillation.training.settings import LoraSettings as LoraSettings
    from radio_dspy.distillation.training.settings import TrainingSettings as TrainingSettings
    from radio_dspy.engines.ray import RayEngine as RayEngine
    from radio_dspy.lm.adapters import PlainAdapter as PlainAdapter
    from radio_dspy.lm.limits import Budget as Budget
    from radio_dspy.lm.local import local_lm as local_lm
    from radio_dspy.lm.signatures import ChooseOption as ChooseOption
    from radio_dspy.lm.signatures import ExtractRationale as ExtractRationale
    from radio_dspy.lm.signatures import GenerateAnswer as GenerateAnswer
    from radio_dspy.lm.signatures import NextQuery as NextQuery
    from radio_dspy.lm.signatures import RationaleGuidedRerank as RationaleGuidedRerank
    from radio_dspy.lm.streaming import PlainStreamListener as PlainStreamListener
    from radio_dspy.models.encoder import Encoder as Encoder
    from radio_dspy.models.files import weights as weights
    from radio_dspy.models.remote_encoder import RemoteEncoder as RemoteEncoder
    from radio_dspy.optimizers.group_finetune import GroupFinetune as GroupFinetune
    from radio_dspy.optimizers.presets import hosted_preset as hosted_preset
    from radio_dspy.optimizers.presets import local_preset as local_preset
    from radio_dspy.optimizers.radio import RADIO as RADIO
    from radio_dspy.persistence.export import export as export
    from radio_dspy.persistence.hub import push_to_hub as push_to_hub
    from radio_dspy.persistence.mlflow_models import load_model as load_model
    from radio_dspy.persistence.mlflow_models import log_model as log_model
    from radio_dspy.persistence.saving import load as load
    from radio_dspy.persistence.saving import save as save
    from radio_dspy.programs.multi_hop import MultiHop as MultiHop
    from radio_dspy.programs.multiple_choice import MultipleChoice as MultipleChoice
    from radio_dspy.programs.retrieve_rerank_answer import RetrieveRerankAnswer as RetrieveRerankAnswer
    from radio_dspy.programs.with_rerank import with_rerank as with_rerank
    from radio_dspy.questions.making import MadeQuestions as MadeQuestions
    from radio_dspy.questions.making import make_questions as make_questions
    from radio_dspy.questions.traces import questions_from_traces as questions_from_traces
    from radio_dspy.reporting.comparison import Comparison as Comparison
    from radio_dspy.reporting.comparison import compare_programs as compare_programs
    from radio_dspy.reporting.writing import write_report as write_report
    from radio_dspy.rerankers.lm import LMRerank as LMRerank
    from radio_dspy.rerankers.rationale import RationaleRerank as RationaleRerank
    from radio_dspy.rerankers.remote import RemoteRerank as RemoteRerank
    from radio_dspy.rerankers.rerank import NoRerank as NoRerank
    from radio_dspy.rerankers.rerank import Rerank as Rerank
    from radio_dspy.retrievers.aligned import aligned_retriever as aligned_retriever
    from radio_dspy.retrievers.bm25 import BM25Retriever as BM25Retriever
    from radio_dspy.retrievers.faiss import FaissRetriever as FaissRetriever
    from radio_dspy.retrievers.hybrid import HybridRetriever as HybridRetriever
    from radio_dspy.retrievers.stores.chroma import ChromaRetriever as ChromaRetriever
    from radio_dspy.retrievers.stores.lancedb import LanceDBRetriever as LanceDBRetriever
    from radio_dspy.retrievers.stores.milvus import MilvusRetriever as MilvusRetriever
    from radio_dspy.retrievers.stores.pgvector import PgVectorRetriever as PgVectorRetriever
    from radio_dspy.retrievers.stores.qdrant import QdrantRetriever as QdrantRetriever
    from radio_dspy.retrievers.vector import VectorRetriever as VectorRetriever
    from radio_dspy.retrievers.vector_store import VectorStore as VectorStore


_HOMES = {
    "BM25Retriever": "radio_dspy.retrievers.bm25",
    "Budget": "radio_dspy.lm.limits",
    "ChooseOption": "radio_dspy.lm.signatures",
    "ChromaRetriever": "radio_dspy.retrievers.stores.chroma",
    "Comparison": "radio_dspy.reporting.comparison",
    "Encoder": "radio_dspy.models.encoder",
    "ExtractRationale": "radio_dspy.lm.signatures",
    "FaissRetriever": "radio_dspy.retrievers.faiss",
    "FalseNegatives": "radio_dspy.distillation.preferences.guards",
    "Gate": "radio_dspy.distillation.gate.decision",
    "GenerateAnswer": "radio_dspy.lm.signatures",
    "GroupFinetune": "radio_dspy.optimizers.group_finetune",
    "HybridRetriever": "radio_dspy.retrievers.hybrid",
    "LanceDBRetriever": "radio_dspy.retrievers.stores.lancedb",
    "LMRerank": "radio_dspy.rerankers.lm",
    "LoraSettings": "radio_dspy.distillation.training.settings",
    "MilvusRetriever": "radio_dspy.retrievers.stores.milvus",
    "MadeQuestions": "radio_dspy.questions.making",
    "MultiHop": "radio_dspy.programs.multi_hop",
    "MultipleChoice": "radio_dspy.programs.multiple_choice",
    "NextQuery": "radio_dspy.lm.signatures",
    "NoRerank": "radio_dspy.rerankers.rerank",
    "Passage": "radio_dspy.core.passages",
    "PgVectorRetriever": "radio_dspy.retrievers.stores.pgvector",
    "PreferenceSettings": "radio_dspy.distillation.preferences.settings",
    "PlainAdapter": "radio_dspy.lm.adapters",
    "PlainStreamListener": "radio_dspy.lm.streaming",
    "QdrantRetriever": "radio_dspy.retrievers.stores.qdrant",
    "RADIO": "radio_dspy.optimizers.radio",
    "RadioError": "radio_dspy.core.errors",
    "RankRequest": "radio_dspy.core.rankings",
    "Ranking": "radio_dspy.core.rankings",
    "RayEngine": "radio_dspy.engines.ray",
    "RationaleExtractor": "radio_dspy.distillation.rationales.extractor",
    "RationaleSettings": "radio_dspy.distillation.rationales.settings",
    "RationaleGuidedRerank": "radio_dspy.lm.signatures",
    "RationaleRerank": "radio_dspy.rerankers.rationale",
    "RemoteEncoder": "radio_dspy.models.remote_encoder",
    "RemoteRerank": "radio_dspy.rerankers.remote",
    "Rerank": "radio_dspy.rerankers.rerank",
    "RetrieveRerankAnswer": "radio_dspy.programs.retrieve_rerank_answer",
    "TrainingSettings": "radio_dspy.distillation.training.settings",
    "VectorRetriever": "radio_dspy.retrievers.vector",
    "VectorStore": "radio_dspy.retrievers.vector_store",
    "aligned_retriever": "radio_dspy.retrievers.aligned",
    "compare_programs": "radio_dspy.reporting.comparison",
    "export": "radio_dspy.persistence.export",
    "hosted_preset": "radio_dspy.optimizers.presets",
    "load": "radio_dspy.persistence.saving",
    "load_corpus": "radio_dspy.datasets.loading",
    "load_groups": "radio_dspy.datasets.groups",
    "load_questions": "radio_dspy.datasets.loading",
    "load_qrels": "radio_dspy.datasets.trec",
    "load_run": "radio_dspy.datasets.trec",
    "load_model": "radio_dspy.persistence.mlflow_models",
    "local_lm": "radio_dspy.lm.local",
    "local_preset": "radio_dspy.optimizers.presets",
    "log_model": "radio_dspy.persistence.mlflow_models",
    "make_questions": "radio_dspy.questions.making",
    "push_to_hub": "radio_dspy.persistence.hub",
    "questions_from_traces": "radio_dspy.questions.traces",
    "save": "radio_dspy.persistence.saving",
    "weights": "radio_dspy.models.files",
    "with_rerank": "radio_dspy.programs.with_rerank",
    "write_groups": "radio_dspy.datasets.groups",
    "write_questions": "radio_dspy.datasets.questions",
    "write_qrels": "radio_dspy.datasets.trec",
    "write_run": "radio_dspy.datasets.trec",
    "write_report": "radio_dspy.reporting.writing",
}
_MODULES = (
    "datasets",
    "distillation",
    "evaluation",
    "lm",
    "optimizers",
    "programs",
    "questions",
    "rerankers",
    "retrievers",
)
_MOVED = {"lms": "radio_dspy.lm.local", "metrics": "radio_dspy.evaluation.metrics"}
__all__ = ["__version__", *sorted(_HOMES), *_MODULES, *_MOVED]

install()


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name in _MOVED:  # as an attribute: radio.metrics
        return import_module(_MOVED[name])
    if is_moved(name):
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
