"""Lines that ``radio-dspy serve --feedback`` kept: what was said last of each answer and passage of a question."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_LISTS = ("golden_answers", "pos", "neg")
_SAYS = {"question", "query", "metadata", *_LISTS}
_METADATA = {"supporting_ids", "good", "answer"}


def is_feedback(row: Any) -> bool:
    """Whether a row is one that the server kept."""
    if not (isinstance(row, Mapping) and row.keys() >= _SAYS and all(isinstance(row[one], list) for one in _LISTS)):
        return False
    if not all(isinstance(text, str) for one in _LISTS for text in row[one]):
        return False
    said = row["metadata"]
    return isinstance(said, Mapping) and said.keys() == _METADATA and isinstance(said["supporting_ids"], list)


def settled(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rows with one row of feedback a question, in which the last word on each answer and passage counts.

    Every click on the page adds a line, also one that takes another back. Other rows stay as they are.

    Example:
        >>> def line(good):
        ...     row = {"question": "why?", "query": "why?", "pos": [], "neg": []}
        ...     said = {"supporting_ids": [], "good": good, "answer": "heat"}
        ...     return row | {"golden_answers": ["heat"] if good else [], "metadata": said}
        >>> [row["golden_answers"] for _, row in settled([("line 1", line(True)), ("line 2", line(False))])]
        [[]]
    """
    questions: dict[str, _Said] = {}
    for where, row in rows:
        if is_feedback(row):
            key = json.dumps([row["question"], row.get("choices")], default=str)
            questions.setdefault(key, _Said()).add(where, row)
        else:
            yield where, row
    for said in questions.values():
        yield said.where, said.row


class _Said:
    """What was said of one question."""

    def __init__(self) -> None:
        self.where = ""
        self._last: Mapping[str, Any] = {}
        self._answers: dict[str, bool] = {}
        self._right: dict[str, str] = {}  # id -> text of a passage that answers it
        self._wrong: dict[str, None] = {}  # texts of those that do not

    def add(self, where: str, row: Mapping[str, Any]) -> None:
        """Take in a further line."""
        self.where, self._last = where, row
        said = row["metadata"]
        if isinstance(said["answer"], str) and said["good"] is not None:
            self._answers[said["answer"]] = bool(row["golden_answers"])
        for text in row["neg"]:
            self._wrong[text] = None
            self._right = {key: one for key, one in self._right.items() if one != text}
        for key, text in zip(said["supporting_ids"], row["pos"], strict=False):
            self._right[key] = text
            self._wrong.pop(text, None)

    @property
    def row(self) -> dict[str, Any]:
        """All of it as one line."""
        return {
            **self._last,
            "golden_answers": [answer for answer, good in self._answers.items() if good],
            "metadata": {**self._last["metadata"], "supporting_ids": list(self._right)},
            "pos": list(self._right.values()),
            "neg": list(self._wrong),
        }
