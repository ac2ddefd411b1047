"""Dense retrieval over the vector stores that people have, one file for each engine; nothing is written to them."""

from radio_dspy.core.lazy import lazy_module

_HOMES = {
    "ChromaRetriever": "radio_dspy.retrievers.stores.chroma",
    "LanceDBRetriever": "radio_dspy.retrievers.stores.lancedb",
    "MilvusRetriever": "radio_dspy.retrievers.stores.milvus",
    "PgVectorRetriever": "radio_dspy.retrievers.stores.pgvector",
    "QdrantRetriever": "radio_dspy.retrievers.stores.qdrant",
}
__getattr__, __dir__ = lazy_module(__name__, _HOMES)
