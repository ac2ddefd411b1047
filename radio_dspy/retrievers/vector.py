"""Dense retrieval over any vector store."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from radio_dspy.core.copies import Shared
from radio_dspy.core.errors import SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import Ranking
from radio_dspy.core.redaction import learn
from radio_dspy.models.encoder import Encoder, TextEncoder, check_queries
from radio_dspy.models.open_encoder import as_encoder
from radio_dspy.models.vectors import checked_vectors
from radio_dspy.retrievers.base import Filter, Retriever, checked_filter, checked_k, filter_key
from radio_dspy.retrievers.vector_store import VectorStore, check_store, found_in, passages_in, vectors_in

if TYPE_CHECKING:
    from radio_dspy.models.vectors import Vectors


_FETCHED = 1000  # passages that a store is asked for at a time


class VectorRetriever(Retriever):
    """Finds passages by the similarity of query and passage vectors in a ``VectorStore``. Copies share the store.

    What the store returns is checked here: whatever engine it is, an answer that does not fit is a ``DataError``.

    Args:
        store: Where passages and vectors lie.
        encoder: What made the passage vectors: an ``Encoder`` or ``RemoteEncoder``, or the name of one.
        k: How many passages a call returns when it does not say.
        filter: Metadata that every passage must have, joined with that of a call.
        query_encoder: What encodes queries; None takes ``encoder``.

    Raises:
        SettingsError: If the store lacks a method of ``VectorStore``, or the filter is none.
        StoreError: If the store is down.
    """

    _by_metadata = True  # all that a filter can name stands in a passage's metadata

    def __init__(
        self,
        store: VectorStore,
        encoder: TextEncoder | str,
        k: int = 20,
        *,
        filter: Filter | None = None,
        query_encoder: TextEncoder | None = None,
    ) -> None:
        super().__init__(k)
        learn({"store": store})  # its client's key
        check_store(store)
        self._store = Shared(store)  # connections cannot be copied
        self.encoder = as_encoder(encoder)
        self.query_encoder = query_encoder or self.encoder
        self.filter = checked_filter(filter)

    @property
    def store(self) -> VectorStore:
        """Where passages and vectors lie."""
        store: VectorStore = self._store.held
        return store

    def with_query_encoder(self, query_encoder: Encoder) -> Self:
        """The same store searched with another query encoder, one that was trained for these passage vectors."""
        other = copy.copy(self)
        other.query_encoder = query_encoder
        return other

    def search(self, queries: Sequence[str], k: int, filter: Filter | None = None) -> list[Ranking]:
        """Find the ``k`` best passages for each query."""
        k = checked_k(k)
        both = _joined(self.filter, checked_filter(filter))
        check_queries(queries)
        if not len(queries) or any(value == [] for value in both.values()):  # nothing is asked, or can match
            return [Ranking(query, (), ()) for query in queries]
        vectors = checked_vectors(
            self.query_encoder.encode_queries(queries),
            len(queries),
            self.query_encoder.name,
            dimension=self.store.dimension,
        )
        return found_in(self.store, queries, vectors, k, both, by_metadata=self._by_metadata)

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """The stored vectors of passages, float32 of shape (ids, dimension)."""
        return vectors_in(self.store, ids)

    def vectors_of(self, texts: Mapping[str, str]) -> dict[str, Any]:
        """The stored vectors of those texts that the store holds under these ids with these very words.

        Args:
            texts: The id of each passage, by its ``contents``.
        """
        given = list(texts.items())
        found: dict[str, Any] = {}
        for start in range(0, len(given), _FETCHED):
            part = given[start : start + _FETCHED]
            held = {one.id: one.contents for one in self.passages_by_id([key for _, key in part])}
            same = [(text, key) for text, key in part if held.get(key) == text]
            if same:
                vectors = self.vectors([key for _, key in same])
                found.update(zip((text for text, _ in same), vectors, strict=True))
        return found

    def passages_by_id(self, ids: Sequence[str]) -> list[Passage]:
        """The passages of these ids that the store holds, in their order."""
        parts = (ids[start : start + _FETCHED] for start in range(0, len(ids), _FETCHED))
        return [passage for part in parts for passage in passages_in(self.store, part)]


def vector_part(retriever: Any) -> VectorRetriever | None:
    """The retriever over vectors that a first stage is or, as a hybrid, holds; None where there is none."""
    if isinstance(retriever, VectorRetriever):
        return retriever
    parts = getattr(retriever, "retrievers", ())
    return next((one for one in parts if isinstance(one, VectorRetriever)), None)


def needed_vectors(retriever: Any, place: str) -> VectorRetriever:
    """The part over vectors of a first stage.

    Raises:
        SettingsError: If it has none; the message begins with ``place``.
    """
    found = vector_part(retriever)
    if found is None:
        raise SettingsError(
            f"{place} needs a retriever that searches by vectors, got {type(retriever).__name__}; give a "
            "FaissRetriever, one over a vector store, or a HybridRetriever that holds one."
        )
    return found


def _joined(own: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Both filters: a call may narrow what its retriever is bound to, never widen it."""
    found = {**given, **own}
    for name in own.keys() & given.keys():
        one, other = (value if isinstance(value, list) else [value] for value in (own[name], given[name]))
        kept = set(map(filter_key, other))
        found[name] = [value for value in one if filter_key(value) in kept]
    return found
