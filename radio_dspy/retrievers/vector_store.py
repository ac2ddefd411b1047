"""What a vector store is, and the check of all that one returns, where it comes in."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, Protocol

from radio_dspy.core.errors import DataError, RadioError, SettingsError, StoreError
from radio_dspy.core.passages import LARGEST_SCORE, Passage, as_score, check_passage
from radio_dspy.core.rankings import Ranking, first_repeated
from radio_dspy.core.redaction import cause_of, told
from radio_dspy.core.validation import is_whole, shown
from radio_dspy.models.vectors import checked_vectors
from radio_dspy.retrievers.base import Filter, filter_key

if TYPE_CHECKING:
    from radio_dspy.models.vectors import Vectors

_NEEDED = ("name", "dimension", "search", "vectors", "passages")
_TIED = 1e-4  # by which an approximate engine may confuse two scores
_SCALAR = (str, int, float)


class VectorStore(Protocol):
    """Passages with their vectors, in whatever engine they lie. Nothing is ever written to it.

    What it returns is held against what was asked. An error of its client becomes a ``StoreError``.
    """

    @property
    def name(self) -> str:
        """What error messages call it, without a password or a key."""
        ...

    @property
    def dimension(self) -> int:
        """The length of its vectors."""
        ...

    def search(self, vectors: Vectors, k: int, filter: Filter | None = None) -> list[list[tuple[Passage, float]]]:
        """Find the ``k`` nearest passages of each vector, best first, each with its similarity (higher is nearer).

        Args:
            vectors: Unit vectors, float32 of shape (queries, dimension).
            k: How many passages.
            filter: What their metadata must hold; None takes all.

        Raises:
            StoreError: If the store is down or refuses.
        """
        ...

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """The stored vectors of passages, float32 of shape (ids, dimension), in the order of ``ids``.

        Raises:
            DataError: If an id is not in the store.
            StoreError: If the store is down or refuses.
        """
        ...

    def passages(self, ids: Sequence[str]) -> list[Passage]:
        """The passages of these ids that the store holds, in the order of ``ids``.

        Raises:
            StoreError: If the store is down or refuses.
        """
        ...


@contextlib.contextmanager
def asking(name: str) -> Iterator[None]:
    """Turn what a store or its client raises into a ``StoreError`` without secrets; our own errors pass.

    Raises:
        StoreError: If the store is down or refuses.
    """
    try:
        yield
    except RadioError:
        raise
    except Exception as error:  # every client has errors of its own, some several
        raise StoreError(
            f"{name}: {told(error).rstrip('.'):.400}. See that it runs and holds what is asked for; what a run folder "
            "has is kept, and the same compile goes on from there."
        ) from cause_of(error)


def check_store(store: Any) -> None:
    """See that an object can be asked as a ``VectorStore``.

    Raises:
        SettingsError: If it lacks a method, or its name or dimension is none.
        StoreError: If it is down.
    """
    kind = type(store).__name__
    with asking(kind):
        if missing := [one for one in _NEEDED if not hasattr(store, one)]:
            raise SettingsError(f"{kind} is no VectorStore: it lacks {', '.join(missing)}.")
        if not isinstance(store.name, str) or not store.name.strip():
            raise SettingsError(f"{kind}: its name must be a text, got {shown(store.name)}.")
        if not is_whole(store.dimension) or store.dimension < 1:
            raise SettingsError(f"{store.name}: its dimension must be a whole number, got {shown(store.dimension)}.")


def found_in(
    store: VectorStore, queries: Sequence[str], vectors: Vectors, k: int, filter: Filter, *, by_metadata: bool
) -> list[Ranking]:
    """Search a store; passages of equal score come by their ids, so that all stores agree.

    Args:
        store: What is searched.
        queries: The texts that the vectors stand for.
        vectors: One for each.
        k: How many passages.
        filter: What their metadata must hold.
        by_metadata: Whether all that a filter can name stands in a passage's metadata.

    Raises:
        DataError: If an answer is no list of (passage, score) pairs for each query; if a list holds more than ``k``,
            a passage twice, what is no passage or no number, scores that rise, or what the filter leaves out.
        StoreError: If the store is down or refuses.
    """
    with asking(store.name):
        found = store.search(vectors, k, filter or None)
        try:
            most = min(k + 1, sys.maxsize)
            lists = [list(islice(hits, most)) for hits in islice(found, len(queries) + 1)]  # it may have no end
        except TypeError:
            raise DataError(
                f"{store.name}: search gave {shown(found)}; give for each query a list of (passage, score)."
            ) from None
    if len(lists) != len(queries):
        many = "more" if len(lists) > len(queries) else len(lists)
        raise DataError(f"{store.name}: search gave {many} lists for {len(queries)} queries; give one for each.")
    wanted = {
        name: {filter_key(one) for one in (value if isinstance(value, list) else [value])}
        for name, value in (filter.items() if by_metadata else ())
    }
    place = f"{store.name}: search"
    return [_ranking(query, hits, k, wanted, place) for query, hits in zip(queries, lists, strict=True)]


def _ranking(query: str, hits: list[Any], k: int, wanted: Mapping[str, set[Any]], place: str) -> Ranking:
    if len(hits) > k:
        raise DataError(f"{place} was asked for {k} passages and gave more; give the {k} nearest at most.")
    try:
        passages = tuple(passage for passage, _ in hits)
        scores = [score for _, score in hits]
    except (TypeError, ValueError):
        raise DataError(f"{place} gave {shown(hits)}; give (passage, score) pairs.") from None
    for one in passages:
        check_passage(one, f"{place}: what it found")
        if wanted and (name := _left_out(one, wanted)) is not None:
            raise DataError(
                f"{place} found passage {one.id!r}, whose {name!r} is {shown(one.metadata.get(name))}, which the "
                "filter leaves out; search among the passages whose metadata matches filter."
            )
    if len({one.id for one in passages}) < len(passages):
        doubled = first_repeated(one.id for one in passages)
        raise DataError(f"{place} found passage {doubled!r} twice for one query; give each passage once.")
    falling = _falling(scores, place, passages)
    if any(one <= other for one, other in pairwise(falling)):  # each engine has its own order of equal scores
        order = sorted(range(len(falling)), key=lambda at: (-falling[at], passages[at].id))
        passages, falling = tuple(passages[at] for at in order), tuple(falling[at] for at in order)
    return Ranking(query, passages, falling)


def _falling(scores: list[Any], place: str, passages: Sequence[Passage]) -> tuple[float, ...]:
    """Scores as Python's numbers."""
    import numpy as np

    if not scores:
        return ()
    try:
        found = np.asarray(scores)
    except (ValueError, TypeError, RuntimeError):  # ragged, a tensor on a GPU
        found = np.asarray(None)
    if found.ndim != 1 or found.dtype.kind not in "fiu" or not (np.abs(found) <= LARGEST_SCORE).all():
        wrong = next((one.id for one, score in zip(passages, scores, strict=True) if as_score(score) is None), None)
        named = "" if wrong is None else f", for passage {wrong!r} none"
        raise DataError(f"{place} gave the scores {shown(scores)}{named}; give one finite number for each passage.")
    found = found.astype(np.float64)
    rises = np.diff(found)
    if rises.max(initial=0) > _TIED * max(1.0, float(np.abs(found).max())):
        at = int(rises.argmax())
        raise DataError(
            f"{place} gave {found[at]:.4g} before {found[at + 1]:.4g}; give the best first, by a similarity that is "
            "higher for nearer passages (1 - d for a cosine distance d)."
        )
    return tuple(found.tolist())


def _left_out(passage: Passage, wanted: Mapping[str, set[Any]]) -> str | None:
    """The first field by which a passage does not match; one of several values in a list is enough."""
    for name, values in wanted.items():
        held = passage.metadata.get(name)
        some = held if isinstance(held, list) else [held]
        if not any(isinstance(one, _SCALAR) and filter_key(one) in values for one in some):
            return name
    return None


def vectors_in(store: VectorStore, ids: Sequence[str]) -> Vectors:
    """The stored vectors of passages, of length 1.

    Raises:
        DataError: If they are of another number or dimension, or a row is zero or holds what is no finite number.
        StoreError: If the store is down or refuses.
    """
    import numpy as np

    if not len(ids):
        return np.zeros((0, store.dimension), dtype=np.float32)
    with asking(store.name):
        found = store.vectors(ids)
    return checked_vectors(found, len(ids), store.name, of="passages", dimension=int(store.dimension))


def passages_in(store: VectorStore, ids: Sequence[str]) -> list[Passage]:
    """The passages of these ids that a store holds, in the order of ``ids``.

    Raises:
        DataError: If what it gives is no list of passages of these ids.
        StoreError: If the store is down or refuses.
    """
    with asking(store.name):
        given = store.passages(ids)
        try:
            found = list(given)
        except TypeError:
            raise DataError(f"{store.name}: passages gave {shown(given)}; give a list of Passage.") from None
    asked, held = set(ids), dict[str, Passage]()
    for one in found:
        check_passage(one, f"{store.name}: passages")
        if one.id not in asked:
            raise DataError(f"{store.name}: passages gave {one.id!r}, which was not asked for; give those of ids.")
        if held.setdefault(one.id, one) != one:
            raise DataError(f"{store.name}: passage id {one.id!r} is there more than once; give each its own.")
    return [held[one] for one in ids if one in held]
