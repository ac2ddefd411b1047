"""Feedback as JSON Lines that ``load_questions`` and ``load_groups`` read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from radio_dspy.core.errors import DataError
from radio_dspy.core.files import check_file, check_replaced
from radio_dspy.core.passages import Passage, content_id
from radio_dspy.serving.shapes import Feedback

_OTHER = "give another file for --feedback."
_SAYS = {"id", "question", "query", "golden_answers", "metadata", "pos", "neg"}
_METADATA = {"supporting_ids", "good", "answer"}


def check_feedback(path: Path) -> Path:
    """The file that feedback is added to, behind links.

    Raises:
        SettingsError: If it cannot be written, or holds other lines than feedback.
    """
    check_replaced(path, _is_feedback, "feedback", _OTHER)
    return check_file(path, _OTHER)


def _is_feedback(path: Path) -> bool:
    """Whether every line is one of ``feedback_row``, and whole."""
    with path.open("rb") as file:
        return all(map(_is_row, file))


def _is_row(line: bytes) -> bool:
    try:
        row = json.loads(line)
        return line.endswith(b"\n") and row.keys() >= _SAYS and row["metadata"].keys() == _METADATA
    except (ValueError, AttributeError, RecursionError):
        return False


def feedback_row(given: Feedback, passages: Iterable[Passage]) -> dict[str, Any]:
    """A line for one piece of feedback: the question's answer and labels, and what is preferred to what.

    An answer counts as gold where it was found good. Rows of the same question have the same id, and
    ``load_questions`` puts them together.

    Args:
        given: What somebody said.
        passages: Those that it names.

    Raises:
        DataError: For a passage that was not found.

    Example:
        >>> row = feedback_row(Feedback(question="why?", answer="heat", good=True, passages={"a": True}),
        ...                    [Passage("a", "Yeast dies.")])
        >>> row["golden_answers"], row["pos"], row["metadata"]["supporting_ids"]
        (['heat'], ['Yeast dies.'], ['a'])
    """
    found = {one.id: one for one in passages}
    if unknown := [key for key in given.passages if key not in found]:
        raise DataError(f"passage {unknown[0]!r:.80} is not in the index; send the ids that /ask or /retrieve gave.")
    answers = [given.answer] if given.good and given.answer and given.answer.strip() else []
    right = [key for key, answers_it in given.passages.items() if answers_it]
    row: dict[str, Any] = {
        "id": content_id(given.question),
        "question": given.question,
        "query": given.question,
        "golden_answers": answers,
        "metadata": {"supporting_ids": right, "good": given.good, "answer": given.answer},
        "pos": [found[key].contents for key in right],
        "neg": [found[key].contents for key in given.passages if key not in right],
    }
    return row if given.choices is None else {**row, "choices": given.choices}


def add_feedback(path: Path, row: dict[str, Any]) -> None:
    """Add a line, in one write: several workers may add to the same file."""
    line = json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)
