"""Build and search FAISS indexes: exact or approximate, in full or half precision."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from radio_dspy.core.errors import CheckpointError, SettingsError
from radio_dspy.core.validation import shown
from radio_dspy.retrievers.index_files import check_index_file
from radio_dspy.retrievers.index_layout import PLAIN, IndexLayout, Kind, Precision

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from radio_dspy.models.encoder import Vectors

# Where "auto" changes: below the first a flat search takes about a millisecond. Up to the second a graph answers a
# single question as fast as lists do and is built as fast; from there on lists are built and searched faster.
HNSW_FROM = 20_000
IVF_FROM = 100_000
_DEPTH = 50  # candidates for which recall is measured: the paper's
_SAMPLE = 200  # questions with which it is measured
_EFFORTS = [8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048]
_BLOCK = 65_536  # half-precision vectors that are widened at a time: 100 MB at 384 dimensions
_MANY = 8  # queries from which widening pays
_LINKS = 32  # of a passage in the graph
_PER_LIST = 64  # passages from which a list's centre is learnt
_ROUNDS = 8  # of k-means
_STORED_AS = {"float32": "Flat", "float16": "SQfp16"}  # FAISS' names


def checked_layout(kind: str, dtype: str, recall: float, count: int) -> tuple[Kind, Precision]:
    """Choose the kind for ``"auto"`` and refuse what there is not.

    Args:
        kind: A kind, or ``"auto"``, which goes by the number of passages.
        dtype: A precision.
        recall: The share that an approximate index should find.
        count: Passages.

    Raises:
        SettingsError: For another name, or a recall outside of (0, 1].
    """
    if not isinstance(kind, str) or kind not in (*get_args(Kind), "auto"):
        raise SettingsError(f"kind must be 'flat', 'hnsw', 'ivf' or 'auto', got {shown(kind)}.")
    if not isinstance(dtype, str) or dtype not in _STORED_AS:
        raise SettingsError(f"dtype must be 'float32' or 'float16', got {shown(dtype)}.")
    if not isinstance(recall, int | float) or not 0 < recall <= 1:
        raise SettingsError(f"recall must lie above 0 and up to 1, got {shown(recall)}.")
    by_size = "flat" if count < HNSW_FROM else "hnsw" if count < IVF_FROM else "ivf"
    return (by_size if kind == "auto" else kind), dtype  # type: ignore[return-value]  # both were looked up


def build_index(
    vectors: Vectors, kind: Kind, dtype: Precision, recall: float = 0.98, queries: Vectors | None = None
) -> tuple[Any, IndexLayout]:
    """Index vectors; an approximate index looks just hard enough to reach a recall.

    Args:
        vectors: Unit vectors, float32 of shape (passages, dimension).
        kind: The kind.
        dtype: Precision of the stored vectors.
        recall: The share of the exact candidates that an approximate index should find.
        queries: Unit vectors of questions to measure it with; None takes some of the passages.

    Returns:
        The FAISS index and its layout.
    """
    import faiss

    count, dimension = vectors.shape
    index: Any
    if kind == "flat" and dtype == "float32":
        index = faiss.IndexFlatIP(dimension)
        index.add(vectors)
        return index, PLAIN
    lists = max(1, min(count, int(2 * math.sqrt(count))))
    structure = {"flat": "", "hnsw": f"HNSW{_LINKS},", "ivf": f"IVF{lists},"}[kind]
    index = faiss.index_factory(dimension, structure + _STORED_AS[dtype], faiss.METRIC_INNER_PRODUCT)
    if kind == "ivf":
        index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, _PER_LIST
        index.cp.niter = _ROUNDS
    index.train(vectors)
    index.add(vectors)
    if kind == "ivf":
        index.make_direct_map()  # stored vectors are asked for by row
    if queries is None:
        queries = vectors[:: max(1, count // _SAMPLE)]
    return index, _tuned(index, vectors, IndexLayout(kind, dtype), recall, queries[:_SAMPLE])


def _tuned(index: Any, vectors: Vectors, layout: IndexLayout, recall: float, queries: Vectors) -> IndexLayout:
    """The least effort that reaches the recall; else the greatest there is, with the recall that it has."""
    import faiss

    depth = min(_DEPTH, len(vectors))
    exact = faiss.knn(queries, vectors, depth, faiss.METRIC_INNER_PRODUCT)[1]
    found = layout
    # HNSW always keeps as many passages in sight as are asked for.
    efforts = {"flat": [0], "hnsw": [one for one in _EFFORTS if one > _DEPTH], "ivf": _EFFORTS}[layout.kind]
    for effort in efforts:
        found = IndexLayout(layout.kind, layout.dtype, effort, 0.0)
        apply_effort(index, found)
        rows = search_index(index, found, queries, depth)[1]
        found = IndexLayout(layout.kind, layout.dtype, effort, round(recall_of(exact, rows), 4))
        if found.recall >= recall or (layout.kind == "ivf" and effort >= index.nlist):
            break
    return found


def recall_of(exact: Iterable[ArrayLike], found: Iterable[ArrayLike]) -> float:
    """Share of the exact search's rows that were found, as the mean over the questions.

    Example:
        >>> recall_of([[1, 2], [3, 4]], [[2, 1], [4]])
        0.75
    """
    import numpy as np

    return float(np.mean([np.isin(one, other).mean() for one, other in zip(exact, found, strict=True)]))


def apply_effort(index: Any, layout: IndexLayout) -> None:
    """Tell an index how hard to look."""
    if layout.kind == "hnsw":
        index.hnsw.efSearch = layout.effort
    elif layout.kind == "ivf":
        index.nprobe = layout.effort


def search_index(index: Any, layout: IndexLayout, queries: Vectors, k: int) -> tuple[Any, Any]:
    """Scores and rows of the ``k`` best for each query, all queries in one call; row -1 where fewer were found."""
    if layout.kind != "flat" or layout.dtype == "float32" or len(queries) < _MANY:
        return index.search(queries, k)
    import faiss

    # FAISS compares half-precision vectors with one query at a time. Widened, they go through a matrix product.
    best = faiss.ResultHeap(len(queries), k, keep_max=True)
    for start in range(0, index.ntotal, _BLOCK):
        block = index.reconstruct_n(start, min(_BLOCK, index.ntotal - start))
        scores, rows = faiss.knn(queries, block, min(k, len(block)), faiss.METRIC_INNER_PRODUCT)
        best.add_result(scores, rows + start)
    best.finalize()
    return best.D, best.I


def search_rows(index: Any, layout: IndexLayout, among: Any, queries: Vectors, k: int) -> tuple[Any, Any]:
    """As ``search_index``, but among some rows only (int64, ascending).

    A flat index and few rows are compared one by one; among many rows an approximate index looks as it always does.
    """
    import faiss

    given: Any = faiss  # its type stubs know the parameters of a search only in part
    if layout.kind != "flat" and len(among) > _BLOCK:
        selector = given.IDSelectorBatch(among)
        if layout.kind == "hnsw":
            return index.search(queries, k, params=given.SearchParametersHNSW(sel=selector, efSearch=layout.effort))
        return index.search(queries, k, params=given.SearchParametersIVF(sel=selector, nprobe=layout.effort))
    best = faiss.ResultHeap(len(queries), k, keep_max=True)
    for start in range(0, len(among), _BLOCK):
        rows = among[start : start + _BLOCK]
        scores, places = faiss.knn(queries, stored_vectors(index, rows), min(k, len(rows)), faiss.METRIC_INNER_PRODUCT)
        best.add_result(scores, rows[places])
    best.finalize()
    return best.D, best.I


def read_index(path: Path, layout: IndexLayout, count: int, *, memory_map: bool = False) -> Any:
    """Read an index of so many vectors; the manifest's hash says nothing of who wrote both.

    Raises:
        CheckpointError: If it cannot be read, or is not what the layout says.
    """
    import faiss

    check_index_file(path, layout, count, contents=not memory_map)
    flags = 0
    if memory_map:  # FAISS maps lists and plain arrays in two ways
        flags = faiss.IO_FLAG_MMAP if layout.kind == "ivf" else faiss.IO_FLAG_MMAP_IFC
    index: Any
    try:
        index = faiss.read_index(str(path), flags)
    except (RuntimeError, MemoryError, ValueError) as error:
        raise CheckpointError(f"{path}: FAISS cannot read it ({error!s:.200}); build the index again.") from error
    apply_effort(index, layout)
    return index


def stored_vectors(index: Any, rows: ArrayLike) -> Vectors:
    """What an index keeps at some rows, float32 of shape (rows, dimension)."""
    import numpy as np

    return np.asarray(index.reconstruct_batch(np.asarray(rows, dtype=np.int64)), dtype=np.float32)
