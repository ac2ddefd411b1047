"""First-stage retrieval."""

from radio_dspy.retrievers.aligned import aligned_retriever
from radio_dspy.retrievers.base import Retriever
from radio_dspy.retrievers.faiss import FaissRetriever
from radio_dspy.retrievers.vector import VectorRetriever
from radio_dspy.retrievers.vector_store import VectorStore

__all__ = ["FaissRetriever", "Retriever", "VectorRetriever", "VectorStore", "aligned_retriever"]
