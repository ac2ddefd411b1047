"""Passages, read from whatever holds them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from numbers import Real
from typing import Any

from radio_dspy.core.errors import DataError
from radio_dspy.core.validation import (
    _METADATA,
    _TEXTS,
    checked_text,
    is_blank,
    json_fields,
    plain_text,
    shown,
)

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


NULL_PASSAGE = Passage("(null)", "")  # "nothing helps": the zero against which passages are scored
