"""Passages, ranking tasks and rankings."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from numbers import Real
from typing import Any

from radio_dspy.core.errors import DataError
from radio_dspy.core.html import html_table, shortened
from radio_dspy.core.validation import (
    _METADATA,
    _TEXTS,
    checked_text,
    finite_scores,
    is_blank,
    json_fields,
    plain_text,
    shown,
)

_SHOWN_CHARACTERS = 300  # of a text, in a notebook
LARGEST_SCORE = 1e30  # float32 has room for it
_CONTENT_ID = re.compile("p-[0-9a-f]{12}")
_IDS = ("id", "node_id")  # LlamaIndex's nodes have the second


@dataclass(frozen=True, slots=True)
class Passage:
    r"""A piece of text that can be retrieved.

    Attributes:
        id: Unique within its corpus.
        text: The text itself.
        title: Heading, possibly empty.
        metadata: Anything else that is known of it, of JSON types: its source, a tenant, a date. Neither the encoder
            nor the LM reads it; a retriever can filter by it. Numbers of numpy's become Python's, dates ISO texts,
            tuples lists, None an empty mapping.

    Raises:
        DataError: For metadata that cannot be written as JSON.

    Example:
        >>> Passage("p1", "Water that turns to vapour carries warmth away.", title="Evaporation").contents
        'Evaporation\nWater that turns to vapour carries warmth away.'
    """

    id: str
    text: str
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)

    def __post_init__(self) -> None:
        given: Any = self.metadata
        if type(given) is not dict or not _is_plain(given):
            object.__setattr__(self, "metadata", _as_metadata(given, self.id))

    @property
    def contents(self) -> str:
        """Title and text as the encoder and the LM read them (FlashRAG's form: title, line break, text)."""
        return f"{self.title}\n{self.text}" if self.title else self.text

    # DSPy writes a list of texts into a prompt by what follows: a predictor reads passages as it reads their contents.

    def __str__(self) -> str:
        return self.contents

    def __contains__(self, part: str) -> bool:
        return part in self.contents

    def replace(self, old: str, new: str) -> str:
        """The contents with one text in the place of another."""
        return self.contents.replace(old, new)


def _is_plain(metadata: dict[Any, Any]) -> bool:
    """Whether metadata is of JSON types as it is; True only where that is seen at a glance."""
    for name, value in metadata.items():
        if type(name) is not str or not name.isascii():
            return False
        kind = type(value)
        if not (
            kind is bool
            or value is None
            or (kind is str and value.isascii())
            or (kind is int and value.bit_length() < 64)
            or (kind is float and isfinite(value))
        ):
            return False
    return True


def _as_metadata(given: Any, key: Any) -> dict[str, Any]:
    if given is None:
        return {}
    found = json_fields(given)
    if not isinstance(given, Mapping) or len(found) < len(given):
        wrong = next(({name: one} for name, one in given.items() if name not in found), None) if found else None
        raise DataError(
            f"Passage {shown(key)}: metadata must be an object of JSON types, got {shown(wrong or given)}; leave it "
            "out, or give a text or a finite number."
        )
    return found


def as_passage(item: Any, position: int = 0) -> Passage:
    """Read a passage from what retrievers commonly return.

    An item without an id gets one made from its text, so that the same text has the same id everywhere.

    Args:
        item: A ``Passage``, a string, a mapping with ``contents``, ``text``, ``long_text``, ``page_content`` or
            ``content`` (and ``id``, ``title``, ``metadata`` or ``meta``), or an object with such attributes: a document
            of LangChain or Haystack, a node of LlamaIndex.
        position: Of the item, for messages.

    Raises:
        DataError: If the item holds no text, or id or title are something else.

    Example:
        >>> as_passage("Ice floats.").id == as_passage({"text": "Ice floats."}).id
        True
    """
    if isinstance(item, Passage):
        checked_text(item.text, f"Passage {item.id!r}")
        return item
    if isinstance(item, str):
        return Passage(content_id(item), checked_text(item, f"Passage {position}"))
    kind, item = type(item).__name__, _fields(item)
    text = next((item[name] for name in _TEXTS if isinstance(item.get(name), str)), None)
    if text is None:
        raise DataError(
            f"Passage {position} holds no text (got {kind} with {sorted(map(str, item))!r}); "
            "give a Passage, a string, or a mapping with 'text' or 'contents'."
        )
    given = _id_of(item)
    name = f"Passage {given!r:.80}" if isinstance(given, str) else f"Passage {position}"
    title = "" if item.get("title") is None else plain_text(item["title"], f"{name}, title")
    if not title and "contents" in item and "\n" in text:
        title, _, text = text.partition("\n")
    found = Passage("", checked_text(text, name), title, _metadata_of(item))
    return replace(found, id=content_id(found.contents) if given is None else plain_text(given, f"{name}, id"))


def content_id(contents: str, kind: str = "p") -> str:
    """The id of a passage (or, of kind ``q``, a question) that brings none: short, and made from its text.

    Example:
        >>> content_id("Ice floats.")
        'p-4da31077d040'
    """
    return f"{kind}-{hashlib.sha256(contents.encode('utf-8', 'replace')).hexdigest()[:12]}"


def is_content_id(key: str) -> bool:
    """Whether an id is such as ``content_id`` makes."""
    return _CONTENT_ID.fullmatch(key) is not None


def has_id(item: Any) -> bool:
    """Whether something that ``as_passage`` reads brings an id of its own."""
    return isinstance(item, Passage) or (not isinstance(item, str) and _id_of(_fields(item)) is not None)


def score_of(item: Any) -> Any:
    """The score that a retriever put on a passage, as LlamaIndex and Haystack do; None where there is none."""
    return None if isinstance(item, str | Passage) else _fields(item).get("score")


def as_score(value: Any) -> float | None:
    """A score as a number; None for what is none, or none that float32 has room for."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    return float(value) if abs(float(value)) <= LARGEST_SCORE else None


def _fields(item: Any) -> Mapping[str, Any]:
    """What is read of a mapping or an object."""
    if isinstance(item, Mapping):
        return item
    return {name: getattr(item, name) for name in (*_IDS, "title", "score", *_TEXTS, *_METADATA) if hasattr(item, name)}


def _id_of(item: Mapping[str, Any]) -> Any:
    return next((item[name] for name in _IDS if item.get(name) is not None), None)


def _metadata_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """What can be written as JSON of a passage's metadata."""
    return json_fields(next((item[name] for name in _METADATA if isinstance(item.get(name), Mapping)), {}))


def as_passages(items: Any) -> list[Passage]:
    """Read a list of passages; see ``as_passage``.

    Raises:
        DataError: If it is no list, or an item holds no text.

    Example:
        >>> [one.id for one in as_passages(["Ice floats.", {"id": "b", "text": "Yeast dies."}])]
        ['p-4da31077d040', 'b']
    """
    if isinstance(items, str | bytes | Mapping) or not (hasattr(items, "__len__") and hasattr(items, "__getitem__")):
        listed = isinstance(items, Iterable) and not isinstance(items, str | bytes | Mapping)
        hint = "; give list(...) of it" if listed else ""
        raise DataError(f"Passages must be a list, got {type(items).__name__}{hint}.")
    try:
        found = [items[position] for position in range(len(items))]
    except (KeyError, TypeError) as error:  # a table, or a column with an index of its own
        raise DataError(
            f"Passages must be a list, and {type(items).__name__} gives none at position {error}; give list(...) of it."
        ) from error
    return [as_passage(item, position) for position, item in enumerate(found)]


def checked_corpus(passages: Iterable[Any]) -> list[Passage]:
    """The passages of a corpus, each of which can be written down and read again.

    Raises:
        DataError: For what is no ``Passage``, and for an id or a text that is empty or no text.
    """
    if isinstance(passages, str | bytes | Mapping) or not isinstance(passages, Iterable):
        raise DataError(f"Passages must be a list of Passage, got {type(passages).__name__}.")
    found = list(passages)
    for number, one in enumerate(found):
        check_passage(one, f"Passage {number}")
        if is_blank(one.text):
            raise DataError(f"Passage {number} ({one.id!r}): its text is empty; leave it out, or fill it in.")
    return found


def check_passage(one: Any, place: str) -> None:
    """See that something is a ``Passage`` with an id, and that its texts can be written.

    Raises:
        DataError: If not; it begins with ``place``.
    """
    if not isinstance(one, Passage) or not isinstance(one.id, str):
        raise DataError(f"{place}: needs a Passage whose id is a string, got {shown(one)}.")
    if is_blank(one.id):
        raise DataError(f"{place}: the id {one.id!r} is empty; leave it out, or fill it in.")
    for name in ("id", "text", "title"):
        value = getattr(one, name)
        if type(value) is not str or not value.isascii():
            checked_text(value, f"{place}: passage {one.id!r}, {name}")


def texts_of(passages: Sequence[Any]) -> list[str]:
    """Title and text of each passage, as encoders and LMs read them; see ``as_passages``."""
    return [one.contents for one in as_passages(passages)]


def best_first(scores: Sequence[float]) -> list[int]:
    """The positions of scores, highest first; equal scores keep their order.

    Example:
        >>> best_first([0.1, 0.7, 0.1])
        [1, 0, 2]
    """
    return sorted(range(len(scores)), key=lambda position: -scores[position])


@dataclass(frozen=True, slots=True)
class Ranking:
    """Passages in order, best first, each with its score.

    Attributes:
        query: What the passages were ranked for.
        passages: Best first.
        scores: One finite number for each passage, on the ranker's own scale.
    """

    query: str
    passages: tuple[Passage, ...]
    scores: tuple[float, ...]

    def __post_init__(self) -> None:
        finite_scores(self.scores, f"{self.query!r:.80}")
        if len(self.passages) != len(self.scores):
            raise DataError(f"{self.query!r:.80}: {len(self.passages)} passages but {len(self.scores)} scores.")

    def __len__(self) -> int:
        return len(self.passages)

    @property
    def ids(self) -> tuple[str, ...]:
        """The passages' ids, best first."""
        return tuple(passage.id for passage in self.passages)

    def top(self, k: int | None) -> Ranking:
        """The first ``k`` passages; all of them when ``k`` is None."""
        return Ranking(self.query, self.passages[:k], self.scores[:k])

    def _repr_html_(self) -> str:
        rows = [
            [str(rank), f"{score:.3f}", one.id, one.title, shortened(one.text, _SHOWN_CHARACTERS)]
            for rank, (one, score) in enumerate(zip(self.passages, self.scores, strict=True), start=1)
        ]
        return html_table(shortened(self.query, _SHOWN_CHARACTERS), ["", "score", "id", "title", "text"], rows)

    @classmethod
    def from_scores(cls, query: str, passages: Sequence[Passage], scores: Iterable[float]) -> Ranking:
        """Order passages by score; equal scores keep the order in which they came."""
        values = finite_scores(scores, f"{query!r:.80}")
        if len(values) != len(passages):
            raise DataError(f"{query!r:.80}: {len(passages)} passages but {len(values)} scores.")
        order = best_first(values)
        return cls(query, tuple(passages[i] for i in order), tuple(values[i] for i in order))


@dataclass(frozen=True, slots=True)
class RankRequest:
    """One question with its candidates: what a signal scores and a reranker orders.

    Attributes:
        id: The question's id; everything about the question is joined by it.
        query: The question as the retriever saw it.
        candidates: The retrieved passages, in the first stage's order.
        scores: The first stage's scores, aligned with ``candidates``.
        answers: Gold answers; empty where they are unknown.
        rationale: Why the answer holds, as the LM wrote it; empty where there is none.
        more_rationales: Further samples of the rationale; see ``RationaleExtractor(n=)``.
        relevant: Ids of passages labelled as needed for the answer; used to evaluate, never to train unless asked for.
        copies: Ids of passages that are the question itself and therefore no candidates.
        grades: How relevant passages are, by their ids, where the labels say more than yes or no.
    """

    id: str
    query: str
    candidates: tuple[Passage, ...]
    scores: Sequence[float]
    answers: tuple[str, ...] = ()
    rationale: str = ""
    relevant: frozenset[str] = field(default_factory=frozenset)
    copies: frozenset[str] = field(default_factory=frozenset)
    grades: Mapping[str, float] = field(default_factory=dict)
    more_rationales: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checked_text(self.query, f"Question {self.id!r}")
        finite_scores(self.scores, f"Question {self.id!r}")
        if len(self.candidates) != len(self.scores):
            raise DataError(f"Question {self.id!r}: {len(self.candidates)} candidates but {len(self.scores)} scores.")
        doubled = first_repeated(passage.id for passage in self.candidates)
        if doubled is not None:
            raise DataError(
                f"Question {self.id!r}: candidate {doubled!r} appears twice; give every passage its own id."
            )

    @property
    def gains(self) -> dict[str, float]:
        """What each judged passage is worth: its grade, or 1 where it is relevant without one."""
        judged = {key: one for key, one in self.grades.items() if key in self.relevant or one <= 0}
        return {**dict.fromkeys(sorted(self.relevant), 1.0), **judged}

    def ranking(self) -> Ranking:
        """The candidates in the first stage's order."""
        return Ranking(self.query, self.candidates, tuple(self.scores))


def first_repeated(values: Iterable[Hashable]) -> Any:
    """The first value that comes again; None where each comes once."""
    seen: set[Hashable] = set()
    return next((one for one in values if one in seen or seen.add(one)), None)  # type: ignore[func-returns-value]


NULL_PASSAGE = Passage("(null)", "")  # "nothing helps": the zero against which passages are scored
