"""Feedback as JSON Lines that ``load_questions`` and ``load_groups`` read."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from radio_dspy.core.errors import DataError, RunError
from radio_dspy.core.files import check_file, check_replaced
from radio_dspy.core.passages import Passage
from radio_dspy.core.redaction import logger_of
from radio_dspy.datasets.feedback import is_feedback
from radio_dspy.datasets.groups import load_groups
from radio_dspy.datasets.loading import load_questions
from radio_dspy.runs.lock import lock_file
from radio_dspy.serving.shapes import Feedback

logger = logger_of(__name__)
_OTHER = "give another file for --feedback."


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
        return line.endswith(b"\n") and is_feedback(json.loads(line))
    except (ValueError, RecursionError):
        return False


def feedback_row(given: Feedback, passages: Iterable[Passage]) -> dict[str, Any]:
    """A line for one piece of feedback: the question's answer and labels, and what is preferred to what.

    An answer counts as gold where it was found good. ``load_questions`` puts rows of the same question together.

    Args:
        given: What somebody said.
        passages: Those that it names.

    Raises:
        DataError: For a passage that was not found, and for what would make the file one that cannot be loaded.

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
        "question": given.question,
        "query": given.question,
        "golden_answers": answers,
        "metadata": {"supporting_ids": right, "good": given.good, "answer": given.answer},
        "pos": [found[key].contents for key in right],
        "neg": [found[key].contents for key in given.passages if key not in right],
    }
    if given.choices is not None:
        row["choices"] = given.choices
    load_questions([row])
    if right:
        load_groups([row])
    return row


def add_feedback(path: Path, row: dict[str, Any]) -> None:
    """Add a line whole or not at all; several workers may add to the same file.

    Raises:
        RunError: If the file cannot be written.
    """
    line = json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(opened, "ab", buffering=0) as file:
            while not lock_file(file):  # another line is being added
                time.sleep(0.001)
            before = os.fstat(file.fileno()).st_size
            try:
                while line:
                    line = line[file.write(line) :]
            except OSError:
                file.truncate(before)
                raise
    except OSError as error:
        logger.error("%s: feedback was not kept (%s).", path, error.strerror)
        raise RunError(f"the feedback was not kept ({error.strerror}): its file cannot be written.") from error
