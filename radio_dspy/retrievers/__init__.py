"""First-stage retrieval."""

from radio_dspy.retrievers.aligned import aligned_retriever
from radio_dspy.retrievers.base import Retriever
from radio_dspy.retrievers.faiss import FaissRetriever

__all__ = ["FaissRetriever", "Retriever", "aligned_retriever"]
