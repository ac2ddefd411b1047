"""Write questions as JSON Lines that ``load_questions`` reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import dspy

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.files import check_file, write_lines
from radio_dspy.datasets.examples import answers_of, relevant_of
from radio_dspy.datasets.loading import load_questions


def as_questions(rows: Sequence[Mapping[str, Any]]) -> list[dspy.Example]:
    """The examples of rows, as ``load_questions`` gives them; none of no rows."""
    return load_questions(rows) if rows else []


def check_questions_file(path: str | PathLike[str]) -> Path:
    """See that a file for questions is new and can be written, before anything is done for it.

    Raises:
        SettingsError: If it is there and holds something, or cannot be made.
    """
    target = check_file(Path(path), "give another file.")
    if target.exists() and target.stat().st_size:
        raise SettingsError(f"{path}: is there already, and stays; give a new file.")
    return target


def write_questions(examples: Iterable[dspy.Example], path: str | PathLike[str]) -> Path:
    """Write questions, with answers, labels and metadata, to a new JSON Lines file; return it.

    Raises:
        SettingsError: If the file is there and holds something, or cannot be made.
        DataError: If answers or labels of an example are no texts.

    Example:
        >>> from tempfile import mkdtemp
        >>> file = Path(mkdtemp()) / "train.jsonl"
        >>> _ = write_questions([dspy.Example(question="What kills yeast?", answers=["heat"], relevant=["p1"])], file)
        >>> load_questions(file)[0].relevant
        ['p1']
    """
    rows = [_row(one) for one in examples]
    write_lines(check_questions_file(path), rows)
    return Path(path)


def _row(example: dspy.Example) -> dict[str, Any]:
    labels = sorted(relevant_of(example))
    given = example.get("metadata")
    metadata = {**given} if isinstance(given, Mapping) else {}
    if labels:
        metadata.setdefault("supporting_ids", labels)
    row = {"question": example.question, "golden_answers": list(answers_of(example)), "metadata": metadata}
    if example.get("id"):
        row = {"id": str(example.id), **row}
    return {**row, "choices": list(example.choices)} if example.get("choices") else row
