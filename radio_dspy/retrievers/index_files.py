"""What a FAISS file holds, read without FAISS: it takes sizes, ids and links as they are written, and reads past them.

Only the kinds that ``build_index`` makes are known. Layouts of the bytes: faiss/impl/index_write.cpp.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from radio_dspy.core.errors import CheckpointError
from radio_dspy.models.vectors import length_problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from radio_dspy.retrievers.index_layout import IndexLayout

    Array = npt.NDArray[Any]

_CLASSES = {
    b"IxFI": "IndexFlatIP",
    b"IxF2": "IndexFlatL2",
    b"IxSQ": "IndexScalarQuantizer",
    b"IHNf": "IndexHNSWFlat",
    b"IHNs": "IndexHNSWSQ",
    b"IwFl": "IndexIVFFlat",
    b"IwSq": "IndexIVFScalarQuantizer",
}
_EXPECTED = {
    ("flat", "float32"): b"IxFI",
    ("flat", "float16"): b"IxSQ",
    ("hnsw", "float32"): b"IHNf",
    ("hnsw", "float16"): b"IHNs",
    ("ivf", "float32"): b"IwFl",
    ("ivf", "float16"): b"IwSq",
}
_BYTES = {"float32": 4, "float16": 2}
_WIDEST = 1 << 16  # dimensions
_ROWS = 65_536  # vectors that are looked at together
_HALF = 4  # FAISS' QT_fp16
_BY_ARRAY = 1  # its DirectMap::Array


class _NotOurs(Exception):  # noqa: N818
    """A file that is none of ours; the text says why."""


class _Bytes:
    """A file's bytes, one after the other; nothing is read that is not there."""

    def __init__(self, path: Path) -> None:
        import numpy as np

        if not path.stat().st_size:
            raise _NotOurs("it is empty")
        self.data = np.memmap(path, dtype=np.uint8, mode="r")
        self.position = 0

    def take(self, size: int) -> Array:
        if size > len(self.data) - self.position:
            raise _NotOurs("it ends before its last part")
        self.position += size
        return self.data[self.position - size : self.position]

    def numbers(self, format: str) -> tuple[Any, ...]:  # noqa: A002
        return struct.unpack(f"<{format}", self.take(struct.calcsize(f"<{format}")).tobytes())

    def name(self) -> bytes:
        return self.take(4).tobytes()

    def array(self, dtype: str, count: int | None = None) -> Array:
        """So many values; None reads how many."""
        import numpy as np

        if count is None:
            (count,) = self.numbers("Q")
        return np.frombuffer(self.take(count * np.dtype(dtype).itemsize).data, dtype=dtype)


def check_index_file(path: Path, layout: IndexLayout, count: int, *, contents: bool = True) -> None:
    """See that a file is an index of this layout, with so many unit vectors, and that nothing in it leads out of it.

    Args:
        path: The file.
        layout: What it should be.
        count: How many vectors it should hold.
        contents: Whether every vector and the ids of lists are looked at, which reads the whole file.

    Raises:
        CheckpointError: If it is something else, or damaged.
    """
    try:
        file = _Bytes(path)
        kind = file.name()
        dimension, found, _, _, trained, metric = file.numbers("iqqq?i")
        if kind != _EXPECTED[layout.kind, layout.dtype] or found != count or metric != 0 or not count:
            _refuse_kind(path, kind, found, count)
        if not trained:
            raise _NotOurs("it says that it is not trained")
        if not 0 < dimension <= _WIDEST:
            raise _NotOurs(f"{dimension} dimensions")
        if layout.kind == "ivf":
            _check_lists(path, file, layout, dimension, count, contents)
        else:
            if layout.kind == "hnsw":
                _check_graph(file, count)
                _check_storage_header(file, layout, dimension, count)
            stored = _stored(file, layout.dtype, dimension, count)
            if contents:
                _check_vectors(stored[start : start + _ROWS] for start in range(0, count, _ROWS))
        if file.position != len(file.data):
            raise _NotOurs("something follows its last part")
    except _NotOurs as error:
        raise CheckpointError(f"{path}: FAISS cannot read it safely: {error}; build the index again.") from None


def _refuse_kind(path: Path, kind: bytes, found: int, count: int) -> NoReturn:
    name = _CLASSES.get(kind)
    if name is None:
        raise _NotOurs("it is no index that this library writes")
    raise CheckpointError(f"{path}: holds {found} vectors of {name} for {count} passages; build the index again.")


def _check_storage_header(file: _Bytes, layout: IndexLayout, dimension: int, count: int) -> None:
    """Of an index inside of another."""
    kind = file.name()
    d, found, _, _, trained, metric = file.numbers("iqqq?i")
    if kind != _EXPECTED["flat", layout.dtype] or (d, found, metric, trained) != (dimension, count, 0, True):
        raise _NotOurs("its parts do not belong together")


def _quantizer(file: _Bytes, dimension: int) -> None:
    kind, _, _, d, size = file.numbers("iifQQ")
    if (kind, d, size, len(file.array("<f4"))) != (_HALF, dimension, 2 * dimension, 0):
        raise _NotOurs("it quantizes in another way")


def _stored(file: _Bytes, dtype: str, dimension: int, count: int) -> Array:
    """The vectors of a flat index."""
    if dtype == "float16":
        _quantizer(file, dimension)
        stored = file.array("<u1").view("<f2")
    else:
        stored = file.array("<f4")
    if len(stored) != count * dimension:
        raise _NotOurs(f"{len(stored)} numbers for {count} vectors of {dimension} dimensions")
    return stored.reshape(count, dimension)


def _check_vectors(blocks: Iterator[Array]) -> None:
    for block in blocks:
        if problem := length_problem(block, 1e-2):
            raise _NotOurs(f"a vector {problem}")


def _check_graph(file: _Bytes, count: int) -> None:
    """Levels, places and links of a graph: FAISS follows them without looking."""
    import numpy as np

    file.array("<f8")  # how levels were drawn
    ends = file.array("<i4").astype(np.int64)  # of a passage's links, level by level
    levels, places, links = file.array("<i4"), file.array("<u8").astype(np.int64), file.array("<i4")
    entry, top, _, effort, _ = file.numbers("iiiii")
    if len(levels) != count or len(places) != count + 1 or not 2 <= len(ends) < 100 or effort < 1:
        raise _NotOurs("a graph of another size")
    in_order = ends[0] == 0 and (np.diff(ends) > 0).all() and ends[-1] < 1 << 20
    if not in_order or levels.min() < 1 or levels.max() >= len(ends):
        raise _NotOurs("levels that there are not")
    if places[0] != 0 or places[-1] != len(links) or (np.diff(places) != ends[levels]).any():
        raise _NotOurs("links in places that there are not")
    if not 0 <= entry < count or levels[entry] != top + 1 or levels.max() != top + 1:
        raise _NotOurs("a graph whose entry is not there")
    if links.min(initial=-1) < -1 or links.max(initial=-1) >= count:
        raise _NotOurs("links to passages that there are not")
    for level in range(1, top + 1):  # a link on a level leads to a passage that is on it
        on_it = np.flatnonzero(levels > level)
        linked = links[places[on_it][:, None] + np.arange(ends[level], ends[level + 1])]
        if (levels[linked[linked >= 0]] <= level).any():
            raise _NotOurs("links between levels")


def _check_lists(path: Path, file: _Bytes, layout: IndexLayout, dimension: int, count: int, contents: bool) -> None:
    """Centres and lists, and that every passage stands in one place."""
    import numpy as np

    lists, _ = file.numbers("QQ")
    if not 0 < lists <= count:
        raise _NotOurs(f"{lists} lists")
    plain = type(layout)("flat", "float32")
    _check_storage_header(file, plain, dimension, lists)
    centres = _stored(file, "float32", dimension, lists)
    if not np.isfinite(centres).all():
        raise _NotOurs("a centre holds what is no number")
    (mapped,) = file.numbers("b")
    where = file.array("<i8")
    size, by_residual = _BYTES[layout.dtype] * dimension, False
    if layout.dtype == "float16":
        _quantizer(file, dimension)
        code_size, by_residual = file.numbers("Q?")
        if code_size != size:
            raise _NotOurs("it quantizes in another way")
    if file.name() != b"ilar":  # such as lists that lie in another file
        _refuse_kind(path, _EXPECTED["ivf", layout.dtype], count, count)
    sizes = _sizes(file, lists, size, count)
    if mapped != _BY_ARRAY or len(where) != count:
        _refuse_kind(path, _EXPECTED["ivf", layout.dtype], len(where), count)
    if not ((where >> 32 >= 0) & (where >> 32 < lists)).all() or (where & 0xFFFFFFFF >= sizes[where >> 32]).any():
        raise _NotOurs("passages in lists that there are not")
    for number in range(lists):
        codes, ids = file.take(int(sizes[number]) * size), file.array("<i8", int(sizes[number]))
        if not contents or not len(ids):
            continue
        if ids.min() < 0 or ids.max() >= count:
            raise _NotOurs("ids of passages that there are not")
        if (where[ids] != (number << 32) + np.arange(len(ids))).any():  # then also one that stands in two lists
            raise _NotOurs("a passage stands in several lists, or in another place than is written down")
        vectors = codes.view(f"<f{_BYTES[layout.dtype]}").reshape(len(ids), dimension)
        _check_vectors(iter([vectors + centres[number] if by_residual else vectors]))


def _sizes(file: _Bytes, lists: int, size: int, count: int) -> Array:
    """How many passages each list holds."""
    import numpy as np

    found, code_size = file.numbers("QQ")
    how, given = file.name(), file.array("<u8").astype(np.int64)
    sizes = np.zeros(lists, dtype=np.int64)
    if (found, code_size) != (lists, size):
        raise _NotOurs("lists of another size")
    if how == b"full" and len(given) == lists:
        sizes = given
    elif how == b"sprs" and len(given) % 2 == 0 and ((given[::2] >= 0) & (given[::2] < lists)).all():
        sizes[given[::2]] = given[1::2]
    else:
        raise _NotOurs("lists of another kind")
    if sizes.min() < 0 or sizes.max() > count or sizes.sum() != count:
        raise _NotOurs("lists of another size")
    return sizes
