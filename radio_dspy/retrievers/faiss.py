"""Dense retrieval over a FAISS index."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

from radio_dspy.datasets import load_corpus
from radio_dspy.encoders import Encoder, TextEncoder, as_encoder, copy_weights, reopened_encoder
from radio_dspy.errors import CheckpointError, DataError, SettingsError
from radio_dspy.files import replacing, sha256_of, write_json, write_lines
from radio_dspy.passages import Passage, Ranking, checked_corpus
from radio_dspy.retrievers.base import Retriever, checked_k

if TYPE_CHECKING:
    from radio_dspy.encoders import Vectors

FORMAT_VERSION = 1
_FILES = ("passages.jsonl", "index.faiss")
_QUERY_ENCODER = "query-encoder"


class FaissRetriever(Retriever):
    """Finds passages by the dot product of unit vectors, exactly (a flat FAISS index).

    Build it once with ``build``, keep it with ``save`` and ``load``. Copies share the index.

    Example:
        >>> passages = [Passage("a", "Yeast dies above sixty degrees."), Passage("b", "Ice floats.")]
        >>> retriever = FaissRetriever.build(passages, encoder="all-MiniLM-L6-v2")
        >>> found = retriever("why did the dough not rise?", k=1)
        >>> found.passages[0].id, len(found.scores)
        ('a', 1)
    """

    def __init__(
        self, index: _Index, encoder: TextEncoder, k: int = 20, *, query_encoder: TextEncoder | None = None
    ) -> None:
        super().__init__(k)
        self._index = index
        self.encoder = encoder
        self.query_encoder = query_encoder or encoder

    def with_query_encoder(self, query_encoder: Encoder) -> FaissRetriever:
        """The same index searched with another query encoder, one that was trained for these passage vectors."""
        return FaissRetriever(self._index, self.encoder, self.k, query_encoder=query_encoder)

    def __len__(self) -> int:
        return len(self._index.passages)

    def __contains__(self, passage_id: object) -> bool:
        return passage_id in self._index.rows

    @property
    def passages(self) -> Sequence[Passage]:
        """The whole corpus, in the order in which it was built."""
        return self._index.passages

    @classmethod
    def build(
        cls,
        passages: Sequence[Passage],
        encoder: TextEncoder | str,
        *,
        vectors: Vectors | None = None,
        k: int = 20,
        show_progress: bool = False,
    ) -> FaissRetriever:
        """Encode passages and index them.

        Args:
            passages: The corpus; ids must be unique.
            encoder: An ``Encoder`` or ``RemoteEncoder``, or the name of one; see ``radio_dspy.encoders.as_encoder``.
            vectors: What this encoder made of the passages elsewhere, float32 of shape (passages, dimension), in their
                order; None encodes them here.
            k: How many passages a call returns when it does not say.
            show_progress: Show a progress bar while encoding.

        Raises:
            DataError: If there are no passages, an id appears twice, an id or a text is empty, or the vectors are not
                one for each passage.
        """
        encoder = as_encoder(encoder)
        passages = checked_corpus(passages)
        if not passages:
            raise DataError("An index needs at least one passage, got none.")
        if vectors is None:
            vectors = encoder.encode_passages(passages, show_progress=show_progress)
        elif vectors.ndim != 2 or len(vectors) != len(passages):
            raise DataError(f"{len(passages)} passages, but vectors of shape {vectors.shape}; give one row for each.")
        return cls(_Index(passages, vectors), encoder, k)

    def search(self, queries: Sequence[str], k: int) -> list[Ranking]:
        """Find the ``k`` best passages for each query, in one batch.

        Raises:
            DataError: For queries that are no list of strings.
            SettingsError: If ``k`` is no whole number of at least 1.
        """
        k = checked_k(k)
        vectors = self.query_encoder.encode_queries(queries)
        return self._index.search(list(queries), vectors, k)

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """The stored unit vectors of passages, float32 of shape (n, dimension)."""
        return self._index.vectors(ids)

    def save(self, path: str | PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Write ``passages.jsonl``, ``index.faiss`` and ``manifest.json`` into a folder.

        A query encoder of its own goes into the subfolder ``query-encoder``. A hosted encoder is written down by its
        name and settings, never with address or key.

        Raises:
            SettingsError: If the path is a file.
        """
        import faiss

        folder = Path(path)
        if folder.exists() and not folder.is_dir():
            raise SettingsError(f"{folder}: is a file; an index is saved into a folder.")
        folder.mkdir(parents=True, exist_ok=True)
        rows = ({"id": one.id, "title": one.title, "text": one.text} for one in self.passages)
        write_lines(folder / "passages.jsonl", rows)
        with replacing(folder / "index.faiss") as temporary:
            faiss.write_index(self._index.flat, str(temporary))
        files = {name: sha256_of(folder / name) for name in _FILES}
        if self.query_encoder is not self.encoder:
            copies = copy_weights(self.query_encoder.name, folder / _QUERY_ENCODER)
            files |= {one.relative_to(folder).as_posix(): sha256_of(one) for one in copies}
        manifest = {
            "format": FORMAT_VERSION,
            "encoder": self.encoder.identity,
            **self.encoder.query_settings,
            "query_prefix": self.query_encoder.query_prefix,  # may change without a new index
            "files": files,
        }
        write_json(folder / "manifest.json", manifest)

    @classmethod
    def load(
        cls, path: str | PathLike[str], encoder: TextEncoder | str | None = None, *, k: int = 20
    ) -> FaissRetriever:
        """Read a folder that ``save`` wrote.

        Args:
            path: The folder.
            encoder: The encoder that built the index; None finds it by the name in the manifest. One that was reached
                at an address given by hand has to be given again.
            k: How many passages a call returns when it does not say.

        Raises:
            CheckpointError: If a file is missing or was changed, or the encoder is not the one that built the index.
        """
        folder = Path(path)
        manifest = _checked_manifest(folder)
        built = manifest["encoder"]
        encoder = as_encoder(encoder) if encoder is not None else reopened_encoder(built, manifest)
        if encoder.identity != built:
            raise CheckpointError(
                f"{folder}: built with encoder {built}, but got {encoder.identity}; give that one, or build again."
            )
        passages = load_corpus(folder / "passages.jsonl")
        query_encoder = None
        if any(name.startswith(f"{_QUERY_ENCODER}/") for name in manifest["files"]):
            query_encoder = Encoder(
                str(folder / _QUERY_ENCODER), query_prefix=manifest["query_prefix"], max_length=built["max_length"]
            )
        index = _Index(passages, flat=_read_flat(folder / "index.faiss", len(passages)))
        return cls(index, encoder, k, query_encoder=query_encoder)


def _checked_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest and hold the files against it."""
    for name in ("manifest.json", *_FILES):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name}: no such file; build the index again with FaissRetriever.build.")
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        version, files = int(manifest["format"]), dict(manifest["files"])
        manifest["query_prefix"], [manifest["encoder"][name] for name in ("model", "passage_prefix", "max_length")]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"{folder / 'manifest.json'}: not an index manifest ({error!r}).") from error
    if version > FORMAT_VERSION:
        raise CheckpointError(f"{folder}: index format {version}; this release reads up to {FORMAT_VERSION}.")
    for found in sorted(folder.rglob("*")):
        if found.is_symlink():
            raise CheckpointError(f"{found}: is a link; copy the folder with the files themselves.")
    if any(name.startswith(f"{_QUERY_ENCODER}/") for name in files):  # else it is left over from an earlier index
        for found in sorted((folder / _QUERY_ENCODER).rglob("*")):
            if found.is_file() and found.relative_to(folder).as_posix() not in files:
                raise CheckpointError(f"{found}: is not in the manifest; remove it.")
    for name in dict.fromkeys((*_FILES, *files)):
        if not _is_inside(name):
            raise CheckpointError(f"{folder / 'manifest.json'}: names {name!r}, which leads out of the folder.")
        if not (folder / name).is_file() or sha256_of(folder / name) != files.get(name):
            raise CheckpointError(f"{folder / name}: was changed after the index was saved; build it again.")
    return dict(manifest)


def _read_flat(path: Path, count: int) -> Any:
    """Read a flat index of so many vectors; the manifest's hash says nothing of who wrote both."""
    import faiss

    try:
        flat = faiss.read_index(str(path))
    except (RuntimeError, MemoryError, ValueError) as error:
        raise CheckpointError(f"{path}: FAISS cannot read it ({error!s:.200}); build the index again.") from error
    if not isinstance(flat, faiss.IndexFlat) or flat.metric_type != faiss.METRIC_INNER_PRODUCT or flat.ntotal != count:
        raise CheckpointError(
            f"{path}: holds {flat.ntotal} vectors of {type(flat).__name__} for {count} passages; build the index again."
        )
    return flat


def _is_inside(name: str) -> bool:
    """Whether a manifest's name stays in its folder, on whatever system it is read."""
    path = PureWindowsPath(name)
    return not path.anchor and ".." not in path.parts


class _Index:
    """Passages with their vectors; immutable, hence shared by all copies of a program."""

    def __init__(self, passages: Sequence[Passage], vectors: Vectors | None = None, flat: Any = None) -> None:
        import faiss

        self.passages = tuple(passages)
        self.rows = {passage.id: row for row, passage in enumerate(self.passages)}
        if len(self.rows) != len(self.passages):
            doubled = next(one.id for row, one in enumerate(self.passages) if self.rows[one.id] != row)
            raise DataError(f"Passage id {doubled!r} appears twice; give every passage its own id.")
        if flat is None and vectors is not None:
            flat = faiss.IndexFlatIP(vectors.shape[1])
            flat.add(vectors)
        self.flat = flat

    def __copy__(self) -> _Index:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> _Index:
        return self

    def search(self, queries: list[str], vectors: Vectors, k: int) -> list[Ranking]:
        scores, rows = self.flat.search(vectors, min(k, len(self.passages)))
        return [
            Ranking(query, tuple(self.passages[row] for row in found), tuple(map(float, values)))
            for query, found, values in zip(queries, rows, scores, strict=True)
        ]

    def vectors(self, ids: Sequence[str]) -> Vectors:
        import numpy as np

        unknown = next((one for one in ids if one not in self.rows), None)
        if unknown is not None:
            raise DataError(f"Passage {unknown!r} is not in the index.")
        rows = np.array([self.rows[one] for one in ids], dtype=np.int64)
        return np.asarray(self.flat.reconstruct_batch(rows), dtype=np.float32)
