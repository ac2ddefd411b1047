"""Dense retrieval over a FAISS index."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, Literal

from radio_dspy.datasets import load_corpus
from radio_dspy.encoders import Encoder, TextEncoder, as_encoder, reopened_encoder
from radio_dspy.errors import CheckpointError, DataError, SettingsError
from radio_dspy.files import replacing, sha256_of, write_json, write_lines
from radio_dspy.model_files import copy_weights
from radio_dspy.passages import Passage, Ranking, checked_corpus
from radio_dspy.retrievers.base import Retriever, checked_k
from radio_dspy.retrievers.index_kinds import (
    PLAIN,
    IndexLayout,
    build_index,
    checked_layout,
    layout_of,
    read_index,
    search_index,
    stored_vectors,
)

if TYPE_CHECKING:
    from radio_dspy.encoders import Vectors
    from radio_dspy.retrievers.index_kinds import Kind, Precision

FORMAT_VERSION = 2  # 1 where the index is one that the first release reads
_INDEX = "index.faiss"
_FILES = ("passages.jsonl", _INDEX)
_EXACT = (PLAIN.kind, PLAIN.dtype)
_QUERY_ENCODER = "query-encoder"


class FaissRetriever(Retriever):
    """Finds passages by the dot product of unit vectors in a FAISS index: exactly, unless another kind is asked for.

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

    @property
    def layout(self) -> IndexLayout:
        """Kind and precision of the index, and the recall that was measured when it was built."""
        return self._index.layout

    @classmethod
    def build(
        cls,
        passages: Sequence[Passage],
        encoder: TextEncoder | str,
        *,
        vectors: Vectors | None = None,
        k: int = 20,
        kind: Kind | Literal["auto"] = "flat",
        dtype: Precision = "float32",
        recall: float = 0.98,
        sample_queries: Sequence[str] = (),
        show_progress: bool = False,
    ) -> FaissRetriever:
        """Encode passages and index them.

        A flat index compares every passage. An approximate one is asked to look just hard enough to find ``recall`` of
        the exact 50 candidates; what it reaches is measured and stands in ``layout``.

        Args:
            passages: The corpus; ids must be unique.
            encoder: An ``Encoder`` or ``RemoteEncoder``, or the name of one; see ``radio_dspy.encoders.as_encoder``.
            vectors: What this encoder made of the passages elsewhere, float32 of shape (passages, dimension), in their
                order; None encodes them here.
            k: How many passages a call returns when it does not say.
            kind: ``"flat"`` is exact; ``"hnsw"`` (a graph) and ``"ivf"`` (lists around centres) are approximate;
                ``"auto"`` is flat below 20,000 passages, HNSW below 100,000 and IVF from there on.
            dtype: ``"float16"`` halves the memory; scores then differ from the fourth decimal on.
            recall: What an approximate index should reach.
            sample_queries: Questions with which recall is measured, of which 200 are enough; without any, passages
                stand in for them, which are easier to find than what real questions ask for.
            show_progress: Show a progress bar while encoding.

        Raises:
            DataError: If there are no passages, an id appears twice, an id or a text is empty, or the vectors are not
                one for each passage.
            SettingsError: For another kind or dtype, or a recall outside of (0, 1].
        """
        encoder = as_encoder(encoder)
        passages = checked_corpus(passages)
        chosen, precision = checked_layout(kind, dtype, recall, len(passages))
        if not passages:
            raise DataError("An index needs at least one passage, got none.")
        rows = _rows_by_id(passages)
        if vectors is None:
            vectors = encoder.encode_passages(passages, show_progress=show_progress)
        elif vectors.ndim != 2 or len(vectors) != len(passages):
            raise DataError(f"{len(passages)} passages, but vectors of shape {vectors.shape}; give one row for each.")
        queries = encoder.encode_queries(sample_queries) if sample_queries and (chosen, precision) != _EXACT else None
        index, layout = build_index(vectors, chosen, precision, recall, queries)
        return cls(_Index(tuple(passages), rows, index, layout), encoder, k)

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

        An index that is there is replaced.

        Raises:
            SettingsError: If the path is a file, or a folder that holds something else than an index.
        """
        import faiss

        folder = Path(path)
        check_place(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / _INDEX) as temporary:
            if self._index.mapped is None:
                faiss.write_index(self._index.faiss, str(temporary))
            else:  # FAISS would write down where mapped lists lie, and not what they hold
                shutil.copyfile(self._index.mapped, temporary)
        rows = ({"id": one.id, "title": one.title, "text": one.text} for one in self.passages)
        write_lines(folder / "passages.jsonl", rows)
        files = {name: sha256_of(folder / name) for name in _FILES}
        if self.query_encoder is not self.encoder:
            copies = copy_weights(self.query_encoder.name, folder / _QUERY_ENCODER)
            files |= {one.relative_to(folder).as_posix(): sha256_of(one) for one in copies}
        manifest = {
            "format": 1 if self.layout.is_plain else FORMAT_VERSION,
            "encoder": self.encoder.identity,
            **self.encoder.query_settings,
            "query_prefix": self.query_encoder.query_prefix,  # may change without a new index
            "files": files,
        }
        if not self.layout.is_plain:
            manifest["index"] = self.layout.as_dict()
        write_json(folder / "manifest.json", manifest)

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        encoder: TextEncoder | str | None = None,
        *,
        k: int = 20,
        memory_map: bool = False,
    ) -> FaissRetriever:
        """Read a folder that ``save`` wrote.

        Args:
            path: The folder.
            encoder: The encoder that built the index; None finds it by the name in the manifest. One that was reached
                at an address given by hand has to be given again.
            k: How many passages a call returns when it does not say.
            memory_map: Leave the vectors on the disk, from where they come when a search needs them and are shared by
                all processes. Their file must then stay as it is, and is not held against its hash, which would read
                it all.

        Raises:
            CheckpointError: If a file is missing or was changed, or the encoder is not the one that built the index.
        """
        folder = Path(path)
        manifest = _checked_manifest(folder, unread=_INDEX if memory_map else None)
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
        layout = layout_of(manifest)
        index = read_index(folder / _INDEX, layout, len(passages), memory_map=memory_map)
        mapped = (folder / _INDEX).resolve() if memory_map else None
        held = _Index(tuple(passages), _rows_by_id(passages), index, layout, mapped)
        return cls(held, encoder, k, query_encoder=query_encoder)


def check_place(folder: Path) -> None:
    """See that an index may be saved here: a new folder, an empty one, or an index's, which is then replaced.

    Raises:
        SettingsError: If it is a file, or a folder that holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder}: is a file; an index is saved into a folder.")
    if not folder.exists() or (folder / _INDEX).is_file():  # the first file that a save writes
        return
    if any(not one.name.startswith(".") for one in folder.iterdir()):
        raise SettingsError(f"{folder}: holds something else than an index; give a new folder, or an index's.")


def _checked_manifest(folder: Path, *, unread: str | None = None) -> dict[str, Any]:
    """Read the manifest and hold the files against it, but for one that is not to be read."""
    for name in ("manifest.json", *_FILES):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder / name}: no such file; give the folder of an index, which FaissRetriever.save and "
                "`radio-dspy index` write."
            )
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        version, files = int(manifest["format"]), dict(manifest["files"])
        manifest["query_prefix"], [manifest["encoder"][name] for name in ("model", "passage_prefix", "max_length")]
        if version <= FORMAT_VERSION:
            layout_of(manifest)
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
        if name == unread and name in files:
            continue
        if not (folder / name).is_file() or sha256_of(folder / name) != files.get(name):
            raise CheckpointError(f"{folder / name}: was changed after the index was saved; build it again.")
    return dict(manifest)


def _is_inside(name: str) -> bool:
    """Whether a manifest's name stays in its folder, on whatever system it is read."""
    path = PureWindowsPath(name)
    return not path.anchor and ".." not in path.parts


def _rows_by_id(passages: Sequence[Passage]) -> dict[str, int]:
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
class _Index:
    """Passages with their vectors; immutable, hence shared by all copies of a program."""

    passages: tuple[Passage, ...]
    rows: dict[str, int]
    faiss: Any
    layout: IndexLayout
    mapped: Path | None = None  # the file in which the vectors lie, if they are not in memory

    def __copy__(self) -> _Index:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> _Index:
        return self

    def search(self, queries: list[str], vectors: Vectors, k: int) -> list[Ranking]:
        scores, rows = search_index(self.faiss, self.layout, vectors, min(k, len(self.passages)))
        return [
            _ranking(query, [self.passages[row] for row in found if row >= 0], values)
            for query, found, values in zip(queries, rows.tolist(), scores.tolist(), strict=True)
        ]

    def vectors(self, ids: Sequence[str]) -> Vectors:
        unknown = next((one for one in ids if one not in self.rows), None)
        if unknown is not None:
            raise DataError(f"Passage {unknown!r} is not in the index.")
        return stored_vectors(self.faiss, [self.rows[one] for one in ids])


def _ranking(query: str, passages: list[Passage], scores: list[float]) -> Ranking:
    """A ranking of what was found: lists that hold too little leave the last places empty."""
    return Ranking(query, tuple(passages), tuple(scores[: len(passages)]))
