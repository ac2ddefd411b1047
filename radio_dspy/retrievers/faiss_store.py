"""Passages and their vectors in a FAISS index, as a store of one machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radio_dspy.core.errors import CheckpointError, DataError
from radio_dspy.core.passages import Passage
from radio_dspy.retrievers.base import filter_key
from radio_dspy.retrievers.faiss_index import search_index, search_rows, stored_vectors
from radio_dspy.retrievers.index_layout import IndexLayout

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radio_dspy.models.encoder import Vectors
    from radio_dspy.retrievers.base import Filter


def rows_by_id(passages: Sequence[Passage]) -> dict[str, int]:
    """Where each passage stands.

    Raises:
        DataError: If an id appears twice.
    """
    rows = {passage.id: row for row, passage in enumerate(passages)}
    if len(rows) != len(passages):
        doubled = next(one.id for row, one in enumerate(passages) if rows[one.id] != row)
        raise DataError(f"Passage id {doubled!r} appears twice; give every passage its own id.")
    return rows


@dataclass(frozen=True, slots=True, eq=False)
class FaissStore:
    """A ``VectorStore`` of one machine: the passages, in the order of their vectors in a FAISS index."""

    held: Sequence[Passage]
    rows: Mapping[str, int]
    faiss: Any
    layout: IndexLayout
    mapped: Path | None = None  # the file in which the vectors lie, if they are not in memory
    by_value: dict[str, dict[tuple[bool, Any], list[int]]] = field(default_factory=dict)  # rows, by field and value

    @property
    def name(self) -> str:
        """See ``VectorStore``."""
        return str(self.mapped or "the index")

    @property
    def dimension(self) -> int:
        """See ``VectorStore``."""
        return int(self.faiss.d)

    def search(self, vectors: Vectors, k: int, filter: Filter | None = None) -> list[list[tuple[Passage, float]]]:
        """See ``VectorStore``."""
        import numpy as np

        if filter:
            among = self._matching(filter)
            k = min(k, len(among))
            if k == 0:
                return [[] for _ in vectors]
            scores, rows = search_rows(self.faiss, self.layout, among, vectors, k)
        else:
            scores, rows = search_index(self.faiss, self.layout, vectors, min(k, len(self.held)))
        if not ((rows >= -1) & (rows < len(self.held))).all() or not np.isfinite(scores[rows >= 0]).all():
            raise CheckpointError(
                f"{self.mapped or 'The index'}: holds what is no vector of a passage; build it again."
            )
        return [  # row -1 where an approximate index found too little
            [(self.held[row], value) for row, value in zip(found, values, strict=True) if row >= 0]
            for found, values in zip(rows.tolist(), scores.tolist(), strict=True)
        ]

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """See ``VectorStore``."""
        unknown = next((one for one in ids if one not in self.rows), None)
        if unknown is not None:
            raise DataError(f"Passage {unknown!r} is not in the index.")
        return stored_vectors(self.faiss, [self.rows[one] for one in ids])

    def passages(self, ids: Sequence[str]) -> list[Passage]:
        """See ``VectorStore``."""
        return [self.held[self.rows[one]] for one in ids if one in self.rows]

    def _matching(self, filter: Filter) -> NDArray[Any]:
        """The rows of the passages whose metadata holds all that is asked for, ascending."""
        import numpy as np

        found = np.arange(len(self.held), dtype=np.int64)
        for name, wanted in filter.items():
            rows = self._rows_by_value(name)
            values = wanted if isinstance(wanted, list) else [wanted]
            matching = [row for value in values for row in rows.get(filter_key(value), ())]
            found = np.intersect1d(found, np.array(matching, dtype=np.int64))
        return found

    def _rows_by_value(self, name: str) -> dict[tuple[bool, Any], list[int]]:
        if name not in self.by_value:
            rows: dict[tuple[bool, Any], list[int]] = {}
            for row, passage in enumerate(self.held):
                value = passage.metadata.get(name)
                for one in value if isinstance(value, list) else [value]:
                    if isinstance(one, str | int | float):
                        rows.setdefault(filter_key(one), []).append(row)
            self.by_value[name] = rows
        return self.by_value[name]
