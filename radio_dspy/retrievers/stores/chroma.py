"""Passages in Chroma."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from radio_dspy.core.passages import Passage
from radio_dspy.retrievers.stores import shared
from radio_dspy.retrievers.stores.values import one_of

_METRICS = {"cosine": shared.COSINE, "ip": shared.INNER_PRODUCT}


class ChromaStore(shared.Store):
    """A collection; a passage's text is its document, unless a field of its metadata is named."""

    def __init__(self, collection: Any, fields: shared.Fields, documents: bool) -> None:
        shared.needed("chromadb", "chroma")
        self._documents = documents
        shared.check_client(collection, "A collection of Chroma", ["name", "query", "configuration_json"])
        self._collection, self.fields, self.name = collection, fields, f"collection {collection.name}"
        with shared.asking(self.name):
            said = collection.configuration_json
            about = said.get("hnsw") or said.get("spann") or {}
            metric = shared.similarity_of(about.get("space", "l2"), self.name, _METRICS)
            sample = list(self._pairs(collection.get(limit=shared.SAMPLE, include=self._parts(True))))
        self.check_sample(sample, metric)

    def _parts(self, vectors: bool) -> list[str]:
        return ["documents", "metadatas", *(["embeddings"] if vectors else [])]

    def _pairs(self, found: Mapping[str, Any]) -> Iterable[tuple[Passage, Any]]:
        vectors = found["embeddings"] if found.get("embeddings") is not None else [None] * len(found["ids"])
        return [
            (self._passage(*one), vector)
            for one, vector in zip(
                zip(found["ids"], found["documents"], found["metadatas"], strict=True), vectors, strict=True
            )
        ]

    def _passage(self, key: str, document: str | None, metadata: Mapping[str, Any] | None) -> Passage:
        row = dict(metadata or {})
        return self.fields.passage({**row, self.fields.text: document} if self._documents else row, key)

    def _search(self, vectors: Any, k: int, wanted: Mapping[str, list[Any]]) -> list[shared.Hits]:
        if not len(vectors):
            return []
        every = [one_of(name, values) for name, values in wanted.items()]
        where = {"$and": every} if len(every) > 1 else every[0] if every else None
        found = self._collection.query(
            query_embeddings=vectors, n_results=k, where=where, include=["documents", "metadatas", "distances"]
        )
        return [
            [(self._passage(key, *said), 1 - far) for key, far, *said in zip(*columns, strict=True)]
            for columns in zip(*(found[part] for part in ("ids", "distances", "documents", "metadatas")), strict=True)
        ]

    def _fetch(self, ids: Sequence[str], vectors: bool) -> Iterable[tuple[Passage, Any]]:
        return self._pairs(self._collection.get(ids=list(ids), include=self._parts(vectors)))


class ChromaRetriever(shared.StoreRetriever):
    """Finds passages in a collection of Chroma, without a write to it; see docs/stores.md."""

    def __init__(self, collection: Any, encoder: Any, *, text: str | None = None, title: str | None = None,
                 metadata: Sequence[str] | None = None, **options: Any) -> None:  # fmt: skip
        fields = shared.Fields(None, text or "document", title, metadata=metadata)
        super().__init__(ChromaStore(collection, fields, text is None), encoder, **options)
