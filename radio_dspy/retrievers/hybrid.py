"""Several first stages as one: their rankings are fused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from radio_dspy.core.errors import CheckpointError, SettingsError
from radio_dspy.core.files import new_folder, write_json
from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import Ranking
from radio_dspy.core.states import Strict, problem_of, read_json
from radio_dspy.core.validation import shown
from radio_dspy.models.encoder import TextEncoder
from radio_dspy.retrievers.base import Filter, Retriever, checked_k
from radio_dspy.retrievers.bm25 import MANIFEST, BM25Retriever
from radio_dspy.retrievers.faiss import FaissRetriever
from radio_dspy.retrievers.vector import vector_part

RRF_K = 60  # Cormack et al. 2009
_KINDS: dict[str, Any] = {"bm25": BM25Retriever, "faiss": FaissRetriever}
_GIVEN: Literal["store"] = "store"  # lies elsewhere and is given again


class _Manifest(Strict):
    format: Literal[1]
    kind: Literal["hybrid"]
    fusion: Literal["rrf"]
    depth: int | None = Field(ge=1)
    parts: list[Literal["bm25", "faiss", "store"]] = Field(min_length=1, max_length=100)


class HybridRetriever(Retriever):
    """Fuses the rankings of several retrievers, such as one by vectors and one by words; passages are joined by id.

    Reciprocal rank fusion: a passage scores the sum of ``1 / (60 + rank)``. Equal scores keep the order of the parts.

    Args:
        retrievers: At least two.
        fusion: ``"rrf"``.
        k: How many passages a call returns when it does not say.
        depth: How many passages each part is asked for; None asks for as many as are returned.

    Raises:
        SettingsError: For fewer than two retrievers, what is no retriever, or another fusion.

    Example:
        >>> passages = [Passage("a", "Yeast dies in heat."), Passage("b", "Ice floats.")]
        >>> dense = FaissRetriever.build(passages, encoder="all-MiniLM-L6-v2")
        >>> HybridRetriever([dense, BM25Retriever(passages)])("does ice swim?", k=1).passages[0].id
        'b'
    """

    def __init__(
        self,
        retrievers: Sequence[Retriever],
        *,
        fusion: Literal["rrf"] = "rrf",
        k: int = 20,
        depth: int | None = None,
    ) -> None:
        super().__init__(k)
        self.retrievers = list(retrievers)
        kinds = [type(one).__name__ for one in self.retrievers]
        if len(kinds) < 2 or not all(isinstance(one, Retriever) for one in self.retrievers):
            raise SettingsError(f"HybridRetriever needs at least two of our retrievers, got {kinds}.")
        if fusion != "rrf":
            raise SettingsError(f"fusion must be 'rrf', got {shown(fusion)}.")
        self.fusion = fusion
        self.depth = None if depth is None else checked_k(depth)

    @property
    def encoder(self) -> TextEncoder | None:
        """The encoder of the part that searches by vectors; None where there is none."""
        dense = vector_part(self)
        return dense.encoder if dense else None

    def search(self, queries: Sequence[str], k: int, filter: Filter | None = None) -> list[Ranking]:
        """Find the ``k`` best passages for each query."""
        depth, given = max(checked_k(k), self.depth or 0), {"filter": filter} if filter else {}
        found = [one.search(queries, depth, **given) for one in self.retrievers]
        return [reciprocal_rank_fusion(rankings, k) for rankings in zip(*found, strict=True)]

    def save(self, path: str | PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Write a manifest and the parts that lie in memory into a new folder; a store stays where it is.

        Raises:
            SettingsError: If the folder holds something, or cannot be made.
            RunError: If the disk is full or broken.
        """
        kinds = [next((kind for kind, one in _KINDS.items() if type(part) is one), _GIVEN) for part in self.retrievers]
        with new_folder(Path(path), "give a new folder.") as making:
            for number, (kind, part) in enumerate(zip(kinds, self.retrievers, strict=True)):
                if kind != _GIVEN:
                    part.save(making / str(number))
            said = {"format": 1, "kind": "hybrid", "fusion": self.fusion, "depth": self.depth, "parts": kinds}
            write_json(making / MANIFEST, said)

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        encoder: TextEncoder | str | None = None,
        *,
        stores: Sequence[Retriever] = (),
        k: int = 20,
    ) -> HybridRetriever:
        """Read a folder that ``save`` wrote.

        Args:
            path: The folder.
            encoder: As for ``FaissRetriever.load``.
            stores: The parts that are not saved, in their order: those over vector stores.
            k: How many passages a call returns when it does not say.

        Raises:
            SettingsError: If it needs another number of stores.
            UnsafeFileError: As for ``FaissRetriever.load``.
            CheckpointError: If the folder is no hybrid retriever, or a part cannot be loaded.
        """
        manifest = Path(path) / MANIFEST
        try:
            said = _Manifest.model_validate(read_json(manifest))
        except (ValidationError, ValueError, OSError, RecursionError) as error:
            problem = problem_of(error) if isinstance(error, ValidationError) else f"{error!s:.200}"
            raise CheckpointError(f"{manifest}: no manifest of a hybrid retriever ({problem}).") from None
        if (needed := said.parts.count(_GIVEN)) != len(stores):
            raise SettingsError(f"{path}: {needed} of its parts lie in stores, got {len(stores)}; give stores=[...].")
        given = iter(stores)
        parts = []
        for number, kind in enumerate(said.parts):
            more = {"encoder": encoder} if kind == "faiss" else {}
            folder = Path(path) / str(number)
            if folder.is_symlink():
                raise CheckpointError(f"{folder}: is a link; copy the folder with the files themselves.")
            parts.append(next(given) if kind == _GIVEN else _KINDS[kind].load(folder, **more))
        return cls(parts, fusion=said.fusion, k=k, depth=said.depth)


def reciprocal_rank_fusion(rankings: Sequence[Ranking], k: int | None = None) -> Ranking:
    """One ranking of several: a passage scores the sum of ``1 / (60 + rank)``.

    Example:
        >>> a, b, c = (Passage(one, one) for one in "abc")
        >>> first, second = Ranking("q", (a, b), (2.0, 1.0)), Ranking("q", (b, c), (9.0, 8.0))
        >>> reciprocal_rank_fusion([first, second]).ids
        ('b', 'a', 'c')
    """
    scores: dict[str, float] = defaultdict(float)
    passages: dict[str, Passage] = {}
    for ranking in rankings:
        for rank, passage in enumerate(ranking.passages, start=1):
            scores[passage.id] += 1 / (RRF_K + rank)
            passages.setdefault(passage.id, passage)
    return Ranking.from_scores(rankings[0].query, list(passages.values()), [scores[key] for key in passages]).top(k)
