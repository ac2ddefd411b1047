"""Plan what is asked: styles of questions, documents, the split by document, and which passages go together."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.core.validation import is_blank, shown
from radio_dspy.retrievers.base import Retriever

Side = Literal["train", "dev"]
# Where loaders of LangChain, LlamaIndex, Haystack and others say which document a passage was cut from.
_DOCUMENTS = ("document_id", "doc_id", "ref_doc_id", "source_id", "source", "file_path", "file_name", "url", "doc_uri")
_NEIGHBOURS = 10  # how many passages are looked at for one to go with


@dataclass(frozen=True, slots=True)
class Style:
    """A kind of question.

    Attributes:
        name: As users call it.
        kind: What the LM is told of it.
        pair: Whether it is asked of two passages.
    """

    name: str
    kind: str
    pair: bool = False


_KINDS = (
    Style("fact", "about one fact: it asks who, what, which, when, where or how much"),
    Style("why", "about a reason: it asks why or how something happens, and the answer is the cause"),
    Style("case", "about a case: it describes a situation of everyday life in other words than the passage's"),
    Style("keywords", "as it is typed into a search box: three to six words, no sentence"),
    Style(
        "multihop", "in two steps: one passage names the thing that is asked about, the other one has the answer", True
    ),
    Style("comparison", "that compares the things of the two passages, and the answer is one of them", True),
)
STYLES = {one.name: one for one in _KINDS}
MIXED = ("fact", "why", "multihop")


@dataclass(frozen=True, slots=True)
class Task:
    """One question to be written: of which style, about which passages."""

    style: Style
    passages: tuple[Passage, ...]


def styles_of(given: str | Sequence[str] | Mapping[str, str] | None) -> list[Style]:
    """The styles that a user names, or describes as ``{name: what kind of question}``.

    Raises:
        SettingsError: For a name that is none.

    Example:
        >>> [one.name for one in styles_of(None)], styles_of({"duty": "about a duty"})[0].kind
        (['fact', 'why', 'multihop'], 'about a duty')
    """
    if isinstance(given, Mapping):
        own = [Style(str(name), str(kind)) for name, kind in given.items() if not is_blank(str(kind))]
        if not own:
            raise SettingsError("style is empty; give at least one name with what kind of question it is.")
        return own
    names = MIXED if given is None else (given,) if isinstance(given, str) else tuple(given)
    if not names or any(name not in STYLES for name in names):
        raise SettingsError(
            f"style must be one or several of {', '.join(STYLES)}, or a mapping of names of your own to what kind of "
            f"question they are; got {shown(given)}."
        )
    return [STYLES[name] for name in names]


def document_of(passage: Passage, field: str | None = None) -> str:
    """The document that a passage was cut from: a field of its metadata, else its title, else the passage itself.

    Args:
        passage: The passage.
        field: The field; None looks for the names that loaders commonly give it, such as ``source``.

    Raises:
        DataError: If ``field`` is named and the passage has none.

    Example:
        >>> document_of(Passage("p1", "Ice floats.", metadata={"source": "ice.pdf"}))
        'ice.pdf'
        >>> document_of(Passage("p2", "Salt melts."))
        'p2'
    """
    if field is not None:
        if passage.metadata.get(field) in (None, ""):
            raise DataError(
                f"Passage {passage.id!r} has no {field!r} in its metadata; fill it in, or leave out document=."
            )
        return str(passage.metadata[field])
    named = next((passage.metadata[name] for name in _DOCUMENTS if passage.metadata.get(name) not in (None, "")), None)
    return str(named) if named is not None else passage.title or passage.id


def sides_of(documents: Mapping[str, str], dev: float, seed: int) -> dict[str, Side]:
    """The side of each passage, so that all passages of a document are on the same one.

    Args:
        documents: The document of each passage, by the passage's id.
        dev: Part of the passages that goes to ``dev``, as nearly as whole documents allow without being more.
        seed: Decides which documents go there.

    Raises:
        SettingsError: If ``dev`` is no share.
    """
    if not 0 <= dev < 1:
        raise SettingsError(f"dev must be at least 0 and below 1, the part of the documents to judge by; got {dev}.")
    sizes: dict[str, int] = {}
    for document in documents.values():
        sizes[document] = sizes.get(document, 0) + 1
    order = sorted(sizes)
    random.Random(f"split {seed}").shuffle(order)
    left = dev * len(documents)
    chosen: set[str] = set()
    for document in order:
        if sizes[document] <= left:
            chosen.add(document)
            left -= sizes[document]
    return {key: "dev" if document in chosen else "train" for key, document in documents.items()}


def tasks(passages: Sequence[Passage], styles: Sequence[Style], seed: int) -> Iterator[Task]:
    """Every passage once with each style, in an order that the seed decides; of pairs the first passage alone."""
    order = list(passages)
    random.Random(f"order {seed}").shuffle(order)
    for turn in range(len(styles)):
        for number, passage in enumerate(order):
            yield Task(styles[(number + turn) % len(styles)], (passage,))


def with_partners(
    planned: Sequence[Task], retriever: Retriever, sides: Mapping[str, Side], documents: Mapping[str, str]
) -> list[Task | None]:
    """The tasks, those of pairs with a passage that the first stage finds near the first; None where there is none.

    The second passage is on the same side of the split, and of another document where one is near enough.
    """
    firsts = [one.passages[0] for one in planned if one.style.pair]
    found = iter(retriever.search([one.contents for one in firsts], _NEIGHBOURS) if firsts else ())
    whole: list[Task | None] = []
    for task in planned:
        if not task.style.pair:
            whole.append(task)
            continue
        first = task.passages[0]
        near = [
            one
            for one in next(found).passages
            if sides.get(one.id) == sides[first.id] and one.id != first.id and one.contents != first.contents
        ]
        near.sort(key=lambda one: documents[one.id] == documents[first.id])  # a stable sort: the nearest stay first
        whole.append(Task(task.style, (first, near[0])) if near else None)
    return whole
