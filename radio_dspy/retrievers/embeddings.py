"""The passages and vectors of a ``dspy.retrievers.Embeddings`` as a first stage: nothing is encoded again."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dspy
from dspy.retrievers.embeddings import Embeddings

from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.core.modules import held
from radio_dspy.core.passages import Passage, as_passage
from radio_dspy.models.callable_encoder import CallableEncoder, unit_rows
from radio_dspy.retrievers.base import Filter, Retriever, retriever_of
from radio_dspy.retrievers.vector import VectorRetriever

if TYPE_CHECKING:
    from radio_dspy.models.vectors import Vectors


class EmbeddingsStore:
    """The corpus of a ``dspy.retrievers.Embeddings``, each text once, under ids made from the texts; no filters.

    Args:
        embeddings: Whose vectors are used as they are.
    """

    def __init__(self, embeddings: Embeddings) -> None:
        found: dict[str, Passage] = {}
        rows: list[int] = []
        for row, text in enumerate(embeddings.corpus):
            passage = as_passage(text, row)
            if passage.id not in found:
                found[passage.id] = passage
                rows.append(row)
        vectors = embeddings.corpus_embeddings
        self.name = "dspy.retrievers.Embeddings"
        self.all = tuple(found.values())
        self._rows = {key: row for row, key in enumerate(found)}
        self._vectors = unit_rows(vectors if len(rows) == len(vectors) else vectors[rows])
        self.dimension = int(self._vectors.shape[1])

    def search(self, vectors: Vectors, k: int, filter: Filter | None = None) -> list[list[tuple[Passage, float]]]:
        """See ``VectorStore``."""
        import numpy as np

        if filter:
            raise SettingsError(f"{self.name}: its passages are strings without metadata; search it without a filter.")
        scores = vectors @ self._vectors.T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return [[(self.all[row], float(line[row])) for row in rows] for line, rows in zip(scores, best, strict=True)]

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """See ``VectorStore``."""
        missing = next((one for one in ids if one not in self._rows), None)
        if missing is not None:
            raise DataError(f"Passage {missing!r} is not in {self.name}.")
        return self._vectors[[self._rows[one] for one in ids]]

    def passages(self, ids: Sequence[str]) -> list[Passage]:
        """See ``VectorStore``."""
        return [self.all[self._rows[one]] for one in ids if one in self._rows]


class EmbeddingsRetriever(VectorRetriever):
    """Searches what a ``dspy.retrievers.Embeddings`` holds, with scores and as deep as asked.

    Its passages are strings, so labels name them by their text or by ``core.passages.content_id`` of it.

    Args:
        embeddings: The retriever of a DSPy program.
    """

    def __init__(self, embeddings: Embeddings) -> None:
        super().__init__(EmbeddingsStore(embeddings), CallableEncoder(embeddings.embedder), embeddings.k)

    def __contains__(self, passage_id: object) -> bool:
        return isinstance(passage_id, str) and bool(self.store.passages([passage_id]))

    @property
    def passages(self) -> Sequence[Passage]:
        """The whole corpus, each text once."""
        store: Any = self.store
        return store.all


def first_stage_of(program: dspy.Module) -> Retriever | None:
    """The first of our retrievers inside a program; else the first ``dspy.retrievers.Embeddings`` that it uses.

    The latter may be an attribute, or a global or local name that its methods read.
    """
    if (own := retriever_of(program)) is not None:
        return own
    found = next((one for one in held(program) if isinstance(one, Embeddings)), None)
    return None if found is None else _opened(found, id(found.corpus_embeddings), found.k)


@functools.lru_cache(maxsize=2)
def _opened(embeddings: Embeddings, vectors: int, k: int) -> EmbeddingsRetriever:
    return EmbeddingsRetriever(embeddings)
