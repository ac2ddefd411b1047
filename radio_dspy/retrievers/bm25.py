"""Lexical retrieval by BM25."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from radio_dspy.core.copies import SharedByCopies
from radio_dspy.core.errors import CheckpointError, DataError, MissingExtraError, UnsafeFileError
from radio_dspy.core.files import new_folder, sha256_of, write_json, write_lines
from radio_dspy.core.passages import Passage, checked_corpus
from radio_dspy.core.rankings import Ranking, first_repeated
from radio_dspy.core.states import Strict, problem_of, read_json
from radio_dspy.datasets.loading import load_corpus
from radio_dspy.retrievers.base import Filter, Retriever, checked_filter, checked_k

if TYPE_CHECKING:
    from numpy.typing import NDArray

MANIFEST, PASSAGES = "manifest.json", "passages.jsonl"
# What bm25s writes; with a manifest of these names no other file is read.
_ARRAYS = {name: f"{name}.csc.index.npy" for name in ("data", "indices", "indptr")}
_PARAMS = "params.index.json"
_FILES = (PASSAGES, *_ARRAYS.values(), "vocab.index.json", _PARAMS)
_NEW = "give a new folder."


class _Params(Strict):
    """What bm25s is opened with: as ``BM25Retriever`` makes it, whatever release of bm25s wrote it down."""

    k1: float = Field(ge=0)
    b: float = Field(ge=0, le=1)
    delta: float = Field(ge=0)
    method: Literal["lucene"]
    idf_method: Literal["lucene"]
    dtype: Literal["float32"]
    int_dtype: Literal["int32"]
    backend: Literal["numpy"]
    num_docs: int = Field(ge=1)
    version: str


class _Manifest(Strict):
    format: Literal[1]
    kind: Literal["bm25"]
    files: dict[str, str] = Field(max_length=len(_FILES))


class BM25Retriever(Retriever):
    """Finds passages by the words that they share with the query (bm25s, Lucene's variant, English stop words).

    Passages of equal score keep the order in which they were given; one that shares no word is not found.

    Args:
        passages: The corpus; ids must be unique.
        k: How many passages a call returns when it does not say.

    Raises:
        DataError: If there are no passages, an id appears twice, an id or a text is empty.
        MissingExtraError: If bm25s is not installed.

    Example:
        >>> found = BM25Retriever([Passage("a", "Yeast dies in heat."), Passage("b", "Ice floats.")]).search(["ice"], 1)
        >>> found[0].ids
        ('b',)
    """

    def __init__(self, passages: Sequence[Passage], k: int = 20) -> None:
        super().__init__(k)
        held = tuple(checked_corpus(passages))
        if not held:
            raise DataError("BM25 needs at least one passage, got none.")
        if (doubled := first_repeated(one.id for one in held)) is not None:
            raise DataError(f"Passage id {doubled!r} appears twice; give every passage its own id.")
        index = _bm25s().BM25()
        index.index(_words([one.contents for one in held]), show_progress=False)
        self._index = _Index(held, index)

    @property
    def passages(self) -> Sequence[Passage]:
        """The whole corpus, in the order in which it was given."""
        return self._index.passages

    def search(self, queries: Sequence[str], k: int, filter: Filter | None = None) -> list[Ranking]:
        """Find the ``k`` best passages for each query.

        Raises:
            SettingsError: If ``k`` is no whole number of at least 1, or the filter is none.
        """
        k, wanted = checked_k(k), checked_filter(filter)
        among = [_holds(one, wanted) for one in self.passages] if wanted else None
        words = _words(list(queries)) if queries else []
        return [self._index.ranking(query, said, k, among) for query, said in zip(queries, words, strict=True)]

    def save(self, path: str | PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Write passages, index and a manifest into a new folder; nothing in it is pickled.

        Raises:
            SettingsError: If the folder holds something, or cannot be made.
            RunError: If the disk is full or broken.
        """
        with new_folder(Path(path), _NEW) as making:
            self._index.bm25.save(making, show_progress=False, allow_pickle=False)
            rows = ({"id": one.id, "title": one.title, "text": one.text, "metadata": dict(one.metadata)}
                    for one in self.passages)  # fmt: skip
            write_lines(making / PASSAGES, rows)
            digests = {name: sha256_of(making / name) for name in _FILES}
            write_json(making / MANIFEST, {"format": 1, "kind": "bm25", "files": digests})

    @classmethod
    def load(cls, path: str | PathLike[str], k: int = 20) -> BM25Retriever:
        """Read a folder that ``save`` wrote.

        Raises:
            UnsafeFileError: If its manifest names a file that is no part of such an index.
            CheckpointError: If a file is missing or was changed, or holds what is no index of these passages.
        """
        folder = Path(path)
        check_files(folder)
        passages = tuple(load_corpus(folder / PASSAGES))
        try:
            _Params.model_validate(read_json(folder / _PARAMS))
            index = _bm25s().BM25.load(folder, show_progress=False, allow_pickle=False)
            fits = index.scores["num_docs"] == len(passages) and _is_sound(index)
        except Exception as error:  # what numpy and bm25s raise for files of another shape has no class in common
            problem = problem_of(error) if isinstance(error, ValidationError) else f"{error!s:.200}"
            raise CheckpointError(f"{folder}: holds no index that bm25s reads ({problem}).") from None
        if not fits:
            raise CheckpointError(f"{folder}: its index is not that of its passages; build it again.")
        found = cls.__new__(cls)
        Retriever.__init__(found, k)
        found._index = _Index(passages, index)
        return found


def check_files(folder: Path) -> None:
    """Hold the files of a saved index against its manifest; see ``BM25Retriever.load``."""
    path = folder / MANIFEST
    try:
        files = _Manifest.model_validate(read_json(path)).files
    except (ValidationError, ValueError, OSError, RecursionError) as error:
        problem = problem_of(error) if isinstance(error, ValidationError) else f"{error!s:.200}"
        raise CheckpointError(f"{path}: no manifest of a BM25 index ({problem}).") from None
    if unknown := sorted(files.keys() - set(_FILES)):
        raise UnsafeFileError(f"{path}: names {unknown[0]!r}, which is no part of a BM25 index.")
    for name in _FILES:
        found = folder / name
        if found.is_symlink() or not found.is_file() or files.get(name) != sha256_of(found):
            raise CheckpointError(f"{found}: is missing, a link, or was changed after it was saved; build it again.")


def _is_sound(index: Any) -> bool:
    """Whether the arrays point nowhere but into each other, every word into them, and scores are such of BM25."""
    import numpy as np

    data, rows, starts = (index.scores[name] for name in _ARRAYS)
    if not (rows.ndim == data.ndim == starts.ndim == 1 and rows.dtype.kind == starts.dtype.kind == "i"):
        return False
    inside = len(rows) == 0 or (rows.min() >= 0 and rows.max() < index.scores["num_docs"])
    ordered = len(starts) > 0 and starts[0] == 0 and bool((starts[1:] >= starts[:-1]).all())
    words = all(type(one) is int and 0 <= one < len(starts) - 1 for word, one in index.vocab_dict.items() if word)
    whole = starts[-1] == len(rows) == len(data) if ordered else False
    if not (inside and words and whole and data.dtype == np.float32 and np.isfinite(data).all() and (data >= 0).all()):
        return False
    pairs = np.repeat(np.arange(len(starts) - 1), np.diff(starts)) * np.int64(index.scores["num_docs"]) + rows
    return len(np.unique(pairs)) == len(pairs)  # a word scores a passage once


@dataclass(frozen=True, slots=True, eq=False)
class _Index(SharedByCopies):
    """Passages with bm25s' index of their words; immutable, hence shared by all copies of a program."""

    passages: tuple[Passage, ...]
    bm25: Any

    def ranking(self, query: str, words: list[str], k: int, among: Sequence[bool] | None) -> Ranking:
        import numpy as np

        scores: NDArray[Any] = self.bm25.get_scores(words) if words else np.zeros(len(self.passages))
        rows = np.flatnonzero(scores > 0 if among is None else (scores > 0) & np.asarray(among))
        best = rows[np.argsort(-scores[rows], kind="stable")[:k]].tolist()
        return Ranking(query, tuple(self.passages[row] for row in best), tuple(scores[best].tolist()))


def _holds(passage: Passage, wanted: Filter) -> bool:
    """Whether a passage has one of the values of every field; true is not 1."""
    for name, values in wanted.items():
        value = passage.metadata.get(name)
        many = values if isinstance(values, list) else [values]
        if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in many):
            return False
    return True


def _words(texts: list[str]) -> list[list[str]]:
    return _bm25s().tokenize(texts, stopwords="en", return_ids=False, show_progress=False)


def _bm25s() -> Any:
    try:
        import bm25s
    except ImportError as error:
        raise MissingExtraError('BM25 needs bm25s: pip install "radio-dspy[bm25]"') from error
    return bm25s
