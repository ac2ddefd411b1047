"""Preference groups that are there already: FlagEmbedding's ``{"query", "pos", "neg"}`` lines, and those of a run."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import dspy

from radio_dspy.datasets import Source, read_jsonl
from radio_dspy.errors import DataError
from radio_dspy.files import write_lines
from radio_dspy.passages import Passage, checked_corpus, checked_text, plain_text, shown

_OPTIONAL = ("pos_scores", "neg_scores", "prompt")


def load_groups(source: Source, passages: Iterable[Passage] = ()) -> list[dspy.Example]:
    """Load preference groups as DSPy examples whose input is ``question``.

    Each example has ``question``, ``pos`` and ``neg`` (lists of texts) and, where the row has them, ``pos_scores``,
    ``neg_scores``, ``prompt`` and ``id``. Train on them with ``GroupFinetune``.

    Args:
        source: A JSON Lines file (``.gz`` too), or any iterable of rows. A row is FlagEmbedding's ``{"query", "pos",
            "neg"}``, or one of the ``groups.jsonl`` that ``RADIO`` keeps in its run folder, which names passages by id.
        passages: The corpus that such ids belong to.

    Raises:
        DataError: For a row that cannot be used, with file, line and what is wrong; for no rows.

    Example:
        >>> one = load_groups([{"query": "why?", "pos": ["Yeast dies."], "neg": ["Ice floats.", "Salt melts."]}])[0]
        >>> one.question, one.pos, len(one.neg)
        ('why?', ['Yeast dies.'], 2)
    """
    if isinstance(source, bytes | Mapping) or not isinstance(source, str | PathLike | Iterable):
        raise DataError(f"Expected a file name or a list of rows, got {type(source).__name__}.")
    if isinstance(source, str | PathLike):
        rows, name = read_jsonl(source), str(source)
    else:
        rows, name = ((f"row {number}", row) for number, row in enumerate(source, start=1)), "the rows"
    contents = {passage.id: passage.contents for passage in checked_corpus(passages)}
    groups = [_group(where, row, contents) for where, row in rows]
    if not groups:
        raise DataError(f"{name}: holds no groups.")
    return groups


def write_groups(groups: Sequence[dspy.Example], path: str | PathLike[str]) -> Path:
    """Write groups as FlagEmbedding's lines, in one step.

    Args:
        groups: As ``load_groups`` returns them; ``query`` is read where an example has no ``question``.
        path: The JSON Lines file; one that is there is replaced.

    Returns:
        The file.

    Raises:
        DataError: For an example that is no group.
    """
    checked = load_groups([example.toDict() for example in groups])
    write_lines(Path(path), [_row(example) for example in checked])
    return Path(path)


def _group(where: str, row: Any, contents: Mapping[str, str]) -> dspy.Example:
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: expected a mapping, got {type(row).__name__}.")
    if "positive" in row:
        row = _with_texts(where, row, contents)
    question = row.get("query", row.get("question"))
    if not isinstance(question, str) or not question.strip():
        raise DataError(f"{where}: needs a string 'query' that is not empty; the row has {sorted(map(str, row))!r}.")
    checked_text(question, f"{where}: 'query'")
    fields: dict[str, Any] = {"question": question, "pos": _texts(where, row, "pos"), "neg": _texts(where, row, "neg")}
    if not fields["pos"]:
        raise DataError(f"{where}: 'pos' is empty; a preference needs a passage that is preferred.")
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
    if not isinstance(value, list | tuple):
        raise DataError(
            f"{where}: needs a list of strings {name!r}, got {shown(value)}; the row has {sorted(map(str, row))!r}."
        )
    for one in value:
        if not isinstance(one, str) or not one.strip():
            raise DataError(f"{where}: {name!r} must hold strings that are not empty, got {shown(one)} in it.")
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


def _row(example: dspy.Example) -> dict[str, Any]:
    row = {"query": example.question, "pos": example.pos, "neg": example.neg}
    return row | {name: example[name] for name in _OPTIONAL if name in example}
