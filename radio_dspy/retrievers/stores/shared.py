"""What the adapters of all vector stores share: reading passages, errors, checks before anything is paid for."""

from __future__ import annotations

import contextlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from radio_dspy.core.errors import DataError, MissingExtraError, SettingsError, StoreError
from radio_dspy.core.passages import Passage
from radio_dspy.core.redaction import logger_of, watch_logs
from radio_dspy.core.validation import checked_text, plain_number, shown
from radio_dspy.models.encoder import TextEncoder
from radio_dspy.models.vectors import checked_vectors, length_problem
from radio_dspy.retrievers.base import Filter
from radio_dspy.retrievers.vector import VectorRetriever
from radio_dspy.retrievers.vector_store import asking as asking

if TYPE_CHECKING:
    from radio_dspy.models.vectors import Vectors

logger = logger_of(__name__)
SAMPLE = 8  # passages that are looked at before a store is used
COSINE, INNER_PRODUCT = "cosine", "inner product"
_BATCH = 500  # ids asked for at a time
_LONGEST = 1.01  # similarity of unit vectors
Hits = list[tuple[Passage, float]]


@dataclass(frozen=True, slots=True)
class Fields:
    """What a store calls the parts of a passage: columns of a table, or fields of a payload.

    Attributes:
        id: The passage's id; None where the engine itself knows it.
        text: Its text.
        title: Its heading; None, or a field that a passage lacks, gives none.
        embedding: Its vector.
        metadata: One field that holds all metadata by name, or the names of several fields; None takes all others.
    """

    id: str | None = "id"
    text: str = "text"
    title: str | None = None
    embedding: str = "vector"
    metadata: str | Sequence[str] | None = None

    def passage(self, row: Mapping[str, Any], key: Any = None) -> Passage:
        """The passage of a row; ``key`` is its id where that is no field.

        Raises:
            DataError: If it has no id or no text.
        """
        key = _at(row, str(self.id)) if key is None else key
        text = _at(row, self.text)
        if key is None or key == "" or not isinstance(text, str):
            missing = self.text if key not in (None, "") else str(self.id)
            raise DataError(
                f"Passage {key!r} holds nothing that can be read in {missing!r}; it has {sorted(row)}. Say which field "
                "is meant with id= and text=, or fill it in."
            )
        title = _at(row, self.title) if self.title else None
        return Passage(str(key), checked_text(text, f"Passage {key!r}"), str(title or ""), self._metadata(row))

    def names(self, others: Iterable[str]) -> list[str]:
        """The fields that a passage is read from, without its vector; ``others`` are all that the store has."""
        listed = [self.metadata] if isinstance(self.metadata, str) else self.metadata
        found = (self.id, self.text, self.title, *(others if listed is None else listed))
        return [name for name in dict.fromkeys(found) if name and name != self.embedding]

    def _metadata(self, row: Mapping[str, Any]) -> dict[str, Any]:
        if isinstance(self.metadata, str):
            row = _object(row.get(self.metadata), self.metadata)
            names: Iterable[str] = row
        elif self.metadata is not None:
            names = self.metadata
        else:
            names = row.keys() - {self.id, self.text, self.title, self.embedding}
        return {name: _plain(row[name]) for name in names if row.get(name) is not None}

    def check(self, known: Iterable[str], place: str) -> None:
        """See that a store with a schema has every field.

        Raises:
            StoreError: If one is missing.
        """
        held = set(known)
        for name in [*self.names(()), self.embedding]:
            if name not in held:
                raise StoreError(f"{place}: has no {name!r}; it has {sorted(held)}. Give the name that is meant.")


def _at(row: Mapping[str, Any], name: str) -> Any:
    """The value of a field, or of one inside it (``metadata.title``), as Qdrant names it."""
    if name in row or "." not in name:
        return row.get(name)
    outer, _, inner = name.partition(".")
    return _at(row[outer], inner) if isinstance(row.get(outer), Mapping) else None


def _object(value: Any, name: str) -> Mapping[str, Any]:
    """The one field that holds all metadata; a text is read as JSON."""
    with contextlib.suppress(ValueError):
        value = json.loads(value) if isinstance(value, str) and value else value
    if value is not None and value != "" and not isinstance(value, Mapping):
        raise DataError(
            f"{name!r} holds {shown(value)}, and metadata= needs an object of fields by name; give another field, or "
            "a list of fields."
        )
    return value or {}


def _plain(value: Any) -> Any:
    """A value as JSON has it; dates and the like become texts."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(one) for one in value]
    value = plain_number(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def needed(module: str, extra: str) -> Any:
    """A store's client package.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        found = import_module(module)
    except ImportError as error:
        raise MissingExtraError(f'{module} is missing: pip install "radio-dspy[{extra}]"') from error
    watch_logs()
    return found


def check_client(client: Any, wanted: str, methods: Sequence[str]) -> None:
    """See that a store's client can be asked, and answers at once.

    Raises:
        SettingsError: For an asynchronous one, an address, or another kind of object.
    """
    kind = type(client).__name__
    if kind.startswith("Async") or not all(hasattr(client, one) for one in methods):
        raise SettingsError(f"{wanted} is needed, got {kind}; an address or an asynchronous client cannot be asked.")


class Store(ABC):
    """A ``VectorStore`` over one engine: adapters say how it searches and how it fetches by id."""

    name: str
    dimension: int
    fields: Fields
    _by_product = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def search(self, vectors: Vectors, k: int, filter: Filter | None = None) -> list[Hits]:
        """Find the ``k`` nearest passages of each vector."""
        wanted = {name: list(one) if _is_many(one) else [one] for name, one in (filter or {}).items()}
        found = self._search(vectors, k, wanted)
        longer = max((score for hits in found for _, score in hits), default=0.0) if self._by_product else 0.0
        if longer > _LONGEST:
            raise SettingsError(
                f"{self.name}: compares by inner product, and found a similarity of {longer:.3g}: its vectors are not "
                "all of length 1. Store unit vectors, or compare by cosine."
            )
        return found

    def passages(self, ids: Sequence[str]) -> list[Passage]:
        """The passages of these ids that the store holds, in the order of ``ids``."""
        held: dict[str, Passage] = {}
        for part in _parts(ids):
            self._keep(held, ((one.id, one) for one, _ in self._fetch(part, vectors=False)))
        return [held[one] for one in ids if one in held]

    def vectors(self, ids: Sequence[str]) -> Any:
        """The stored vectors of passages, as they are."""
        held: dict[str, Any] = {}
        for part in _parts(ids):
            self._keep(held, ((one.id, vector) for one, vector in self._fetch(part, vectors=True)))
        if missing := [one for one in ids if one not in held]:
            raise DataError(f"Passage {missing[0]!r} is not in {self.name}, nor are {len(missing) - 1} others.")
        return [held[one] for one in ids]

    def _keep(self, held: dict[str, Any], found: Iterable[tuple[str, Any]]) -> None:
        for key, one in found:
            if key in held:
                raise DataError(f"{self.name}: passage id {key!r} is there more than once; give each its own.")
            held[key] = one

    @abstractmethod
    def _search(self, vectors: Vectors, k: int, wanted: Mapping[str, list[Any]]) -> list[Hits]:
        """As ``search``; for each metadata field the values of which a passage must have one."""

    @abstractmethod
    def _fetch(self, ids: Sequence[str], vectors: bool) -> Iterable[tuple[Passage, Any]]:
        """The passages of these ids that are there, in any order, and where it is asked for their vectors."""

    def check_sample(self, sample: Iterable[tuple[Passage, Any]], metric: str, dimension: int | None = None) -> None:
        """See that the first passages of a store can be used, and learn its dimension from them.

        Raises:
            StoreError: If there are none.
            DataError: If they share an id, or a vector is missing, of another dimension, zero or no numbers.
            SettingsError: If they are compared by inner product and are not of length 1.
        """
        import numpy as np

        held: dict[str, Any] = {}
        with asking(self.name):
            looked_at = list(sample)
            self._keep(held, ((one.id, vector) for one, vector in looked_at))
        self._by_product = metric == INNER_PRODUCT
        if not held:
            raise StoreError(f"{self.name}: holds no passage with a vector; fill it first.")
        title = getattr(self, "fields", Fields()).title
        if title and not any(one.title for one, _ in looked_at):
            logger.warning("%s: none of its first passages has a title in %r; give another title=.", self.name, title)
        try:
            found = np.asarray(list(held.values()), dtype=np.float32)
        except (TypeError, ValueError) as error:  # one is missing, or of another length than the others
            raise DataError(f"{self.name}: its vectors are no rows of numbers ({error!s:.200}).") from None
        self.dimension = checked_vectors(found, len(held), self.name, of="passages", dimension=dimension).shape[1]
        if self._by_product and (problem := length_problem(found)):
            raise SettingsError(
                f"{self.name}: compares by inner product, but a vector {problem}; store unit vectors, or compare by "
                "cosine."
            )


class StoreRetriever(VectorRetriever):
    """A ``VectorRetriever`` whose store is held against its encoder first; takes what ``VectorRetriever`` takes."""

    _by_metadata = False  # a column that is not read can be asked for, too, and an engine compares as it does

    def __init__(
        self,
        store: Store,
        encoder: TextEncoder | str,
        k: int = 20,
        *,
        filter: Filter | None = None,
        query_encoder: TextEncoder | None = None,
    ) -> None:
        super().__init__(store, encoder, k, filter=filter, query_encoder=query_encoder)
        length = self.query_encoder.encode_queries([]).shape[1]  # 0 where a hosted encoder was not asked yet
        if length not in (0, store.dimension):
            raise SettingsError(
                f"{store.name}: its vectors have {store.dimension} dimensions, those of {self.query_encoder.name} have "
                f"{length}; give the encoder that made them."
            )


def similarity_of(metric: Any, place: str, known: Mapping[Any, str]) -> str:
    """Cosine or inner product, by the name that an engine gives it.

    Raises:
        SettingsError: For any other metric.
    """
    if metric not in known:
        raise SettingsError(
            f"{place}: compares vectors by {str(metric)!r}; make it with one of {sorted(map(str, known))}, which is "
            "how the encoder's vectors are compared."
        )
    return known[metric]


def _is_many(value: Any) -> bool:
    return isinstance(value, list | tuple | set | frozenset)


def _parts(ids: Sequence[str]) -> Iterator[list[str]]:
    distinct = list(dict.fromkeys(ids))
    return (distinct[start : start + _BATCH] for start in range(0, len(distinct), _BATCH))
