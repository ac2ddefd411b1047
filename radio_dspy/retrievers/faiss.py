"""Dense retrieval over a FAISS index."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from radio_dspy.core.errors import CheckpointError, DataError
from radio_dspy.core.files import replacing, write_lines
from radio_dspy.core.passages import Passage, checked_corpus
from radio_dspy.datasets.loading import load_corpus
from radio_dspy.models.encoder import Encoder, TextEncoder
from radio_dspy.models.endpoint import shown_name
from radio_dspy.models.files import copy_weights
from radio_dspy.models.open_encoder import as_encoder, reopened_encoder
from radio_dspy.models.vectors import checked_vectors
from radio_dspy.retrievers.faiss_index import build_index, checked_layout, read_index
from radio_dspy.retrievers.faiss_store import FaissStore, rows_by_id
from radio_dspy.retrievers.index_files import check_index_file
from radio_dspy.retrievers.index_folder import (
    INDEX,
    PASSAGES,
    PLACES,
    QUERY_ENCODER,
    IndexManifest,
    check_files,
    described,
    read_manifest,
)
from radio_dspy.retrievers.index_layout import PLAIN, IndexLayout
from radio_dspy.retrievers.index_saving import new_index
from radio_dspy.retrievers.indexing import check_source, encode_to_disk, write_corpus
from radio_dspy.retrievers.named_encoder import check_encoder
from radio_dspy.retrievers.passage_file import PassageFile, as_row, write_places
from radio_dspy.retrievers.vector import VectorRetriever

if TYPE_CHECKING:
    from radio_dspy.models.encoder import Vectors
    from radio_dspy.models.engine import Engine
    from radio_dspy.retrievers.index_layout import Kind, Precision

_EXACT = (PLAIN.kind, PLAIN.dtype)
_TRIES = 5  # an index may be replaced while it is read


class FaissRetriever(VectorRetriever):
    """Finds passages by the dot product of unit vectors in a FAISS index: exactly, unless another kind is asked for.

    Build it once with ``build``, keep it with ``save`` and ``load``. Copies share the index.

    Example:
        >>> passages = [Passage("a", "Yeast dies above sixty degrees."), Passage("b", "Ice floats.")]
        >>> retriever = FaissRetriever.build(passages, encoder="all-MiniLM-L6-v2")
        >>> found = retriever("why did the dough not rise?", k=1)
        >>> found.passages[0].id, len(found.scores)
        ('a', 1)
    """

    store: FaissStore

    def __len__(self) -> int:
        return len(self.store.held)

    def __contains__(self, passage_id: object) -> bool:
        return passage_id in self.store.rows

    @property
    def passages(self) -> Sequence[Passage]:
        """The whole corpus, in the order in which it was built."""
        return self.store.held

    @property
    def layout(self) -> IndexLayout:
        """Kind and precision of the index, and the recall that was measured when it was built."""
        return self.store.layout

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
        engine: Engine | None = None,
        show_progress: bool = False,
    ) -> FaissRetriever:
        """Encode passages and index them.

        A flat index compares every passage. An approximate one is asked to look just hard enough to find ``recall`` of
        the exact 50 candidates; what it reaches is measured and stands in ``layout``.

        Args:
            passages: The corpus; ids must be unique.
            encoder: An ``Encoder`` or ``RemoteEncoder``, or the name of one; see ``as_encoder``.
            vectors: What this encoder made of the passages elsewhere, float32 of shape (passages, dimension), in their
                order, brought to length 1 where they are not; None encodes them here.
            k: How many passages a call returns when it does not say.
            kind: ``"flat"`` is exact; ``"hnsw"`` (a graph) and ``"ivf"`` (lists around centres) are approximate;
                ``"auto"`` is flat below 20,000 passages, HNSW below 100,000 and IVF from there on.
            dtype: ``"float16"`` halves the memory; scores then differ from the fourth decimal on.
            recall: What an approximate index should reach.
            sample_queries: Questions with which recall is measured, of which 200 are enough; without any, passages
                stand in for them, which are easier to find than what real questions ask for.
            engine: Where passages are encoded, such as a ``RayEngine``, with the same vectors; None is this process.
            show_progress: Show a progress bar while encoding.

        Raises:
            DataError: If there are no passages, an id appears twice, an id or a text is empty, or the vectors are not
                one for each passage, of finite numbers and not zero.
            SettingsError: For another kind or dtype, or a recall outside of (0, 1].
        """
        encoder = as_encoder(encoder)
        passages = checked_corpus(passages)
        chosen, precision = checked_layout(kind, dtype, recall, len(passages))
        if not passages:
            raise DataError("An index needs at least one passage, got none.")
        rows = rows_by_id(passages)
        if not isinstance(encoder, Encoder):  # before vectors are paid for that could not be loaded again
            described(encoder)
        if vectors is None:
            working = encoder if engine is None else engine.encoder(encoder)
            vectors = working.encode_passages(passages, show_progress=show_progress)
        vectors = checked_vectors(vectors, len(passages), encoder.name, of="passages")
        index, layout = _indexed(vectors, chosen, precision, recall, encoder, sample_queries)
        return cls(FaissStore(tuple(passages), rows, index, layout), encoder, k)

    @classmethod
    def build_from(
        cls,
        source: str | PathLike[str],
        path: str | PathLike[str],
        encoder: TextEncoder | str,
        *,
        k: int = 20,
        kind: Kind | Literal["auto"] = "flat",
        dtype: Precision = "float32",
        recall: float = 0.98,
        sample_queries: Sequence[str] = (),
        engine: Engine | None = None,
        show_progress: bool = False,
    ) -> FaissRetriever:
        """Index a corpus from its files straight into a folder, for one that is too large for memory.

        Makes the files of ``build`` and ``save``. Rows are read, encoded and written a part at a time; of all passages
        only the index is in memory, while it is made.

        Args:
            source: As for ``load_corpus``: a file, a folder of JSON Lines or Parquet files, or a named data set.
            path: As for ``save``. Beside the index it takes the space of the vectors once more while they are made.
            encoder: As for ``build``, and so are the others.
            k: How many passages a call returns when it does not say.
            kind: Of the index.
            dtype: Of its vectors.
            recall: What an approximate index should reach.
            sample_queries: Questions with which it is measured.
            engine: Where passages are encoded.
            show_progress: Show a progress bar while encoding.

        Returns:
            What ``load(path, encoder, memory_map=True)`` gives: vectors and passages stay on the disk.

        Raises:
            DataError: As for ``load_corpus``.
            SettingsError: As for ``build`` and ``save``.
            CheckpointError: If the disk is full, or refuses.

        Example:
            >>> index = FaissRetriever.build_from("corpus/", "index/", "all-MiniLM-L6-v2")  # doctest: +SKIP
        """
        encoder = as_encoder(encoder)
        checked_layout(kind, dtype, recall, 0)
        described(encoder)
        check_source(source)
        working = encoder if engine is None else engine.encoder(encoder)
        with new_index(Path(path)) as making:
            texts, places = making.path(PASSAGES), making.path(PLACES)
            count = write_corpus(source, texts, places)
            chosen, precision = checked_layout(kind, dtype, recall, count)
            with closing(PassageFile(texts, places)) as passages, tempfile.TemporaryFile(dir=making.folder) as file:
                vectors = encode_to_disk(working, passages, file, show_progress=show_progress)
                index, layout = _indexed(vectors, chosen, precision, recall, encoder, sample_queries)
                del vectors  # it is a view of the file
            _write_index(index, making.path(INDEX), layout, count)
            making.manifest = _manifest(encoder, encoder.query_prefix, layout)
        return cls.load(path, encoder, k=k, memory_map=True)

    def save(self, path: str | PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Write ``passages.jsonl``, ``places.npy``, ``index.faiss`` and ``manifest.json`` into a folder.

        A query encoder of its own goes into the subfolder ``query-encoder``. A hosted encoder is written down by its
        name and settings, never with address or key.

        An index that is there is replaced, in one step: whoever reads, and whatever ends the save, the folder holds the
        old one or the new one. Beside it nothing is touched.

        Raises:
            SettingsError: If the path is a file, or a folder that holds something else than an index.
            RunError: If another process is saving there.
            CheckpointError: If the disk is full, or refuses.
        """
        manifest = _manifest(self.encoder, self.query_encoder.query_prefix, self.layout)
        with new_index(Path(path)) as making:
            if self.store.mapped is not None:  # FAISS would write down where mapped lists lie, not what they hold
                with replacing(making.path(INDEX)) as temporary:
                    shutil.copyfile(self.store.mapped, temporary)
            else:
                _write_index(self.store.faiss, making.path(INDEX), self.layout, len(self))
            write_lines(making.path(PASSAGES), map(as_row, self.passages))
            write_places(making.path(PASSAGES), making.path(PLACES))
            if self.query_encoder is not self.encoder:
                copy_weights(self.query_encoder.name, making.path(QUERY_ENCODER))
            making.manifest = manifest

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
            memory_map: Leave vectors and passages on the disk, from where they come when a search needs them and are
                shared by all processes. Their files must then stay as they are. Size, head and tail are held against
                the manifest, and the structure is checked; not every vector and passage, which would read it all.
                Folders of 0.1.0 have their passages read as a whole.

        Raises:
            UnsafeFileError: If the manifest names an address or another thing that is none of an index's; a hosted
                encoder is opened only by the plain name of a known provider.
            CheckpointError: If a file is missing or was changed, or the encoder is not the one that built the index.
        """
        for _ in range(_TRIES):
            manifest = read_manifest(Path(path))
            try:
                return cls._opened(Path(path), manifest, encoder, k, memory_map)
            except (CheckpointError, DataError, OSError) as error:
                if read_manifest(Path(path)) != manifest:  # another index has taken its place meanwhile
                    continue
                if isinstance(error, OSError):
                    raise CheckpointError(f"{path}: cannot be read ({error}).") from error
                raise
        raise CheckpointError(f"{path}: is replaced again and again; load it when it stays.")

    @classmethod
    def _opened(
        cls, folder: Path, manifest: IndexManifest, given: TextEncoder | str | None, k: int, memory_map: bool
    ) -> FaissRetriever:
        check_files(folder, manifest, mapped=memory_map)
        built = {**manifest.encoder, "model": shown_name(str(manifest.encoder["model"]))}
        if given is None:
            check_encoder(folder, manifest)
        encoder = as_encoder(given) if given is not None else reopened_encoder(built, manifest.model_dump())
        if (identity := described(encoder)[0]) != built:
            raise CheckpointError(
                f"{folder}: built with encoder {built}, but got {identity}; give that one, or build again."
            )
        texts = folder / manifest.file(PASSAGES)
        if memory_map and manifest.has_places:
            on_disk = PassageFile(texts, folder / manifest.file(PLACES))
            passages: Sequence[Passage] = on_disk
            rows: Mapping[str, int] = on_disk.rows
        else:
            passages = tuple(load_corpus(texts))
            rows = rows_by_id(passages)
        query_encoder = None
        if manifest.query_encoder:
            query_encoder = Encoder(
                str(folder / manifest.query_encoder),
                query_prefix=manifest.query_prefix,
                max_length=manifest.encoder["max_length"],  # type: ignore[arg-type]  # checked where it was read
            )
        path = folder / manifest.file(INDEX)
        index = read_index(path, manifest.layout, len(passages), memory_map=memory_map)
        mapped = path.resolve() if memory_map else None
        store = FaissStore(passages, rows, index, manifest.layout, mapped)
        return cls(store, encoder, k, query_encoder=query_encoder)


def _indexed(
    vectors: Vectors, kind: Kind, dtype: Precision, recall: float, encoder: TextEncoder, queries: Sequence[str]
) -> tuple[Any, IndexLayout]:
    """The index of vectors; the recall of one that is not exact is measured with questions, where there are any."""
    samples = None
    if (kind, dtype) != _EXACT and queries:
        encoded = encoder.encode_queries(queries)
        samples = checked_vectors(encoded, len(queries), encoder.name, dimension=vectors.shape[1])
    return build_index(vectors, kind, dtype, recall, samples)


def _write_index(index: Any, path: Path, layout: IndexLayout, count: int) -> None:
    import faiss

    with replacing(path) as temporary:
        try:
            faiss.write_index(index, str(temporary))
            check_index_file(temporary, layout, count, contents=False)  # FAISS says nothing of a full disk
        except (RuntimeError, CheckpointError) as error:
            raise OSError(f"FAISS could not write it: {error!s:.200}") from error


def _manifest(encoder: TextEncoder, query_prefix: str | None, layout: IndexLayout) -> dict[str, Any]:
    identity, queries = described(encoder)
    about = {
        **queries,
        "format": 1 if layout.is_plain else 2,
        "encoder": identity,
        "query_prefix": query_prefix,  # may change without a new index
    }
    return about if layout.is_plain else {**about, "index": layout.as_dict()}
