"""How a FAISS index stores its vectors and searches them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["flat", "hnsw", "ivf"]
Precision = Literal["float32", "float16"]


@dataclass(frozen=True, slots=True)
class IndexLayout:
    """How an index keeps its vectors and searches them.

    Attributes:
        kind: ``"flat"`` compares every passage, ``"hnsw"`` walks a graph, ``"ivf"`` looks into the nearest lists.
        dtype: Precision of the stored vectors.
        effort: How many passages HNSW keeps in sight (``efSearch``), or how many lists IVF opens (``nprobe``).
        recall: Share of the exact 50 candidates that it finds, as measured when it was built.
    """

    kind: Kind = "flat"
    dtype: Precision = "float32"
    effort: int = 0
    recall: float = 1.0

    @property
    def is_plain(self) -> bool:
        """Whether it is exact and in whole precision: what all releases read."""
        return self.kind == "flat" and self.dtype == "float32"

    def as_dict(self) -> dict[str, Any]:
        """The layout as JSON types."""
        return asdict(self)


PLAIN = IndexLayout()
