"""Load and write preference groups: FlagEmbedding's lines, triplets, and the groups of a run."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import dspy

from radio_dspy.core.errors import DataError
from radio_dspy.core.files import check_replaced, write_lines
from radio_dspy.core.passages import Passage, as_passage, checked_corpus
from radio_dspy.core.validation import checked_text, is_blank, plain_text, shown
from radio_dspy.datasets.feedback import settled
from radio_dspy.datasets.reading import BlankRowError, LeftOut, Source, is_missing, rows_of
from radio_dspy.datasets.shapes import columns, first_of

_NEEDED, _OPTIONAL = ("query", "pos", "neg"), ("pos_scores", "neg_scores", "prompt")
_WRITTEN = (*_NEEDED, *_OPTIONAL)
_QUERIES = ("query", "question", "anchor")
# Those of sentence-transformers, Tevatron and MIRACL, DPR, and of pairs of questions and answers with mined negatives.
_POSITIVES = ("positive", "pos", "positives", "positive_passages", "positive_ctxs", "answer")
_NEGATIVE = re.compile(r"neg(ative)?s?(_[0-9]+)?|negative_passages|(hard_)?negative_ctxs")
_OF_A_RUN = ("negatives", "random")


@runtime_checkable
class Lookup(Protocol):
    """What finds passages by their ids, as every retriever over vectors does."""

    def passages_by_id(self, ids: Sequence[str], /) -> list[Passage]:
        """Those of the ids that it holds."""


def load_groups(source: Source, passages: Iterable[Passage] | Lookup = ()) -> list[dspy.Example]:
    """Load preference groups as DSPy examples whose input is ``question``.

    Each example has ``question``, ``pos`` and ``neg`` (lists of texts) and, where the row has them, ``pos_scores``,
    ``neg_scores``, ``prompt`` and ``id``. Train on them with ``GroupFinetune``.

    Args:
        source: As for ``load_corpus``. A row is FlagEmbedding's ``{"query", "pos", "neg"}``, whose other keys are
            ignored (a text alone is a list of one), a triplet of sentence-transformers (``anchor``, ``positive``,
            ``negative``; scores of mined negatives are kept), a line of Tevatron or DPR, or one of the ``groups.jsonl``
            that ``RADIO`` keeps in its run folder, which names passages by id. Rows whose query or ``pos`` is empty are
            left out with one warning.
        passages: The corpus that such ids belong to, or the retriever that holds it; a vector store is asked only for
            the passages that are named.

    Raises:
        DataError: For a row that cannot be used, with file, line and what is wrong; for no rows.

    Example:
        >>> one = load_groups([{"query": "why?", "pos": ["Yeast dies."], "neg": ["Ice floats.", "Salt melts."]}])[0]
        >>> one.question, one.pos, len(one.neg)
        ('why?', ['Yeast dies.'], 2)
    """
    rows: Iterable[tuple[str, Mapping[str, Any]]] = settled(rows_of(source))
    if isinstance(passages, Lookup):
        rows = list(rows)
        passages = _fetched(passages, _named_in(row for _, row in rows))
    contents = {passage.id: passage.contents for passage in checked_corpus(passages)}
    left_out = LeftOut(source, "groups")
    groups = []
    for where, row in rows:
        try:
            groups.append(_group(where, row, contents))
        except BlankRowError as error:
            left_out.add(where, error)
    left_out.tell(len(groups))
    return groups


def write_groups(groups: Sequence[dspy.Example], path: str | PathLike[str]) -> Path:
    """Write groups as FlagEmbedding's lines, in one step.

    Args:
        groups: As ``load_groups`` returns them; ``query`` is read where an example has no ``question``.
        path: The JSON Lines file; one that this function wrote is replaced.

    Returns:
        The file.

    Raises:
        DataError: For an example that is no group.
        SettingsError: If something else is there, such as a corpus, or the file would lie in a saved program or index.
    """
    check_replaced(Path(path), _are_groups, "groups", "give another file.")
    write_lines(Path(path), rows_of_groups(groups))
    return Path(path)


def rows_of_groups(groups: Sequence[dspy.Example]) -> list[dict[str, Any]]:
    """What ``write_groups`` writes: a row a group."""
    return [_row(example) for example in load_groups([example.toDict() for example in groups])]


def _group(where: str, row: Any, contents: Mapping[str, str]) -> dspy.Example:
    if _names_passages(row, contents):
        row = _with_texts(where, row, contents)
    elif "pos" not in row or "neg" not in row:
        row = _of_triplet(row)
    name = next((name for name in _QUERIES if name in row), "query")
    question = row.get(name)
    if not isinstance(question, str) or is_blank(question):
        empty = name in row and (is_missing(question) or isinstance(question, str))
        kind = BlankRowError if empty else DataError
        raise kind(f"{where}: needs a string 'query' that is not empty; the row has {columns(row)}.")
    checked_text(question, f"{where}: 'query'")
    fields: dict[str, Any] = {"question": question, "pos": _texts(where, row, "pos"), "neg": _texts(where, row, "neg")}
    if not fields["pos"]:
        raise BlankRowError(f"{where}: 'pos' is empty; a preference needs a passage that is preferred.")
    for texts, name in (("pos", "pos_scores"), ("neg", "neg_scores")):
        if row.get(name) is not None:
            fields[name] = _scores(where, row, name, len(fields[texts]))
    if ("pos_scores" in fields) != ("neg_scores" in fields):
        raise DataError(f"{where}: give both 'pos_scores' and 'neg_scores', or neither.")
    if row.get("prompt") is not None:
        fields["prompt"] = checked_text(row["prompt"], f"{where}: 'prompt'")
    if row.get("id") is not None:
        fields["id"] = plain_text(row["id"], f"{where}: 'id'")
    return dspy.Example(**fields).with_inputs("question")


def _names_passages(row: Mapping[str, Any], contents: Mapping[str, str]) -> bool:
    """Whether a row is one that a run kept: others have texts of several words under these names."""
    positive = row.get("positive")
    text = isinstance(positive, str) and len(positive.split()) > 1 and positive not in contents
    return "positive" in row and any(name in row for name in _OF_A_RUN) and ("random" in row or not text)


def _named_in(rows: Iterable[Any]) -> list[str]:
    """The ids that rows of a run name."""
    found: dict[str, None] = {}
    for row in rows:
        if isinstance(row, Mapping) and _names_passages(row, {}):
            parts = [[row["positive"]], *(row.get(name) for name in _OF_A_RUN)]
            ids = (one for part in parts if isinstance(part, list) for one in part)
            found.update((one, None) for one in ids if isinstance(one, str))
    return [*found]


def _fetched(lookup: Lookup, ids: Sequence[str]) -> list[Passage]:
    found = lookup.passages_by_id(ids) if ids else []
    if ids and not found:
        raise DataError(
            f"The retriever holds none of the {len(ids)} passages that the groups name, such as {ids[0]!r}."
        )
    return found


def _of_triplet(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row with a positive and a negative, or several: texts, lists of texts, or lists of passages."""
    name = first_of(row, _POSITIVES)
    negatives = [row[name] for name in row if isinstance(name, str) and _NEGATIVE.fullmatch(name)]
    if name is None or all(row.get(query) is None for query in _QUERIES):
        return row
    pos = _contents(row[name])
    if not negatives:
        return {**row, "pos": pos}
    found = {**row, "pos": pos, "neg": [text for one in negatives for text in _contents(one)]}
    scores = row.get("scores", row.get("score"))  # mined with output_scores: of the positive, then of the negatives
    if isinstance(scores, list) and len(scores) == len(pos) + len(found["neg"]):
        found |= {"pos_scores": scores[: len(pos)], "neg_scores": scores[len(pos) :]}
    return found


def _contents(value: Any) -> list[Any]:
    """Texts, as they stand or of passages; none for a missing value."""
    given = value if isinstance(value, list | tuple) else [] if is_missing(value) else [value]
    return [as_passage(one).contents if isinstance(one, Mapping) else one for one in given]


def _with_texts(where: str, row: Mapping[str, Any], contents: Mapping[str, str]) -> dict[str, Any]:
    """A record of a run's ``groups.jsonl``, with texts in place of ids."""
    ids = [*_texts(where, {"positive": [row["positive"]]}, "positive")]
    for name in ("negatives", "random"):
        ids += _texts(where, row, name) if row.get(name) is not None else []
    unknown = next((one for one in ids if one not in contents), None)
    if unknown is not None:
        what = "which is not among them" if contents else "whose text is not in the file"
        raise DataError(f"{where}: names passage {unknown!r}, {what}: give load_groups(..., passages=) the corpus.")
    texts = [contents[one] for one in ids]
    scores = row.get("scores") or []
    if not isinstance(scores, list | tuple):
        raise DataError(f"{where}: 'scores' must be a list of numbers, got {shown(scores)}.")
    if scores and len(scores) != len(ids):
        raise DataError(f"{where}: {len(scores)} 'scores' for {len(ids)} passages.")
    named = {"id": row.get("id"), "query": row.get("query"), "pos": texts[:1], "neg": texts[1:]}
    return named | ({"pos_scores": scores[:1], "neg_scores": scores[1:]} if scores else {})


def _texts(where: str, row: Mapping[str, Any], name: str) -> list[str]:
    value = row.get(name)
    if isinstance(value, str) and name in ("pos", "neg"):
        value = [value]
    if not isinstance(value, list | tuple):
        raise DataError(f"{where}: needs a list of strings {name!r}, got {shown(value)}; the row has {columns(row)}.")
    for one in value:
        if not isinstance(one, str) or is_blank(one):
            kind = BlankRowError if is_missing(one) or isinstance(one, str) else DataError
            raise kind(f"{where}: {name!r} must hold strings that are not empty, got {shown(one)} in it.")
        checked_text(one, f"{where}: {name!r}")
    return list(value)


def _scores(where: str, row: Mapping[str, Any], name: str, count: int) -> list[float]:
    value = row[name]
    if not isinstance(value, list | tuple) or len(value) != count:
        raise DataError(f"{where}: {name!r} must hold one number for each of the {count} texts, got {shown(value)}.")
    for one in value:
        if isinstance(one, bool) or not isinstance(one, int | float) or not abs(one) <= sys.float_info.max:
            raise DataError(f"{where}: {name!r} must hold finite numbers, got {shown(one)} in it.")
    return [float(one) for one in value]


def _are_groups(file: Path) -> bool:
    """Whether every line of a file is one that ``write_groups`` writes: its keys in their order, spelt as they are."""
    with file.open("rb") as lines:
        for line in lines:
            try:
                row = json.loads(line)
                same = f"{json.dumps(row, ensure_ascii=False)}\n".encode(errors="backslashreplace") == line
            except (ValueError, RecursionError):
                return False
            if not same or not isinstance(row, dict) or [*row] != [one for one in _WRITTEN if one in {*row, *_NEEDED}]:
                return False
    return True


def _row(example: dspy.Example) -> dict[str, Any]:
    row = {"query": example.question, "pos": example.pos, "neg": example.neg}
    return row | {name: example[name] for name in _OPTIONAL if name in example}
