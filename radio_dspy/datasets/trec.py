"""TREC's files: runs (rankings with scores) and qrels (judgements), read and written."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from radio_dspy.core.errors import DataError
from radio_dspy.core.files import check_file, replacing
from radio_dspy.core.rankings import Ranking
from radio_dspy.core.validation import shown
from radio_dspy.datasets.judgements import Grades, Qrels, read_grades
from radio_dspy.datasets.reading import as_utf8, file_of, opened

_TAG = "radio-dspy"


def load_qrels(source: Qrels) -> Grades:
    """For each question the grade of each judged passage, from TREC's or BEIR's format, rows, or a mapping.

    Raises:
        DataError: For a line that is no judgement, with file and line; for no judgement at all.

    Example:
        >>> load_qrels({"q1": {"a": 2, "b": 0}, "q2": ["c"]})
        {'q1': {'a': 2, 'b': 0}, 'q2': {'c': 1}}
    """
    return read_grades(source)


def load_run(source: str | PathLike[str]) -> dict[str, dict[str, float]]:
    """For each question the score of each passage, best first: TREC's run format, ``q1 Q0 p7 1 12.5 tag``.

    Scores decide the order; of equal ones the larger id comes first, as in trec_eval.

    Raises:
        DataError: For a line that is none of a run, and a passage that comes twice, with file and line.
    """
    path = file_of(source)
    found: dict[str, dict[str, float]] = {}
    for where, line in _lines(path):
        columns = line.split()
        if len(columns) != 6:
            raise DataError(
                f"{where}: expected six columns (question id, Q0, passage id, rank, score, tag), got {shown(line)}."
            )
        query, _, passage, _, score, _ = columns
        try:
            value = float(score)
        except ValueError:
            value = float("nan")
        if not abs(value) <= 1e30:
            raise DataError(f"{where}: the score must be a number, got {shown(score)}.")
        if passage in found.setdefault(query, {}):
            raise DataError(f"{where}: passage {shown(passage)} was already ranked for question {shown(query)}.")
        found[query][passage] = value
    if not found:
        raise DataError(f"{path}: holds no ranking.")
    return {query: dict(_in_order(scores)) for query, scores in found.items()}


def _in_order(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    by_id = sorted(scores.items(), key=lambda one: one[0], reverse=True)
    return sorted(by_id, key=lambda one: -one[1])


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with opened(path) as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"{path}:{number}", as_utf8(f"{path}:{number}", line)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from error


def write_run(rankings: Mapping[str, Ranking], path: str | PathLike[str], tag: str = _TAG) -> Path:
    """Write rankings, by their questions' ids, in TREC's run format; return the file.

    Programs that read it sort by score and then by id. So equal scores are written in falling order, each less than
    the one before by the least that a number of 32 bits can be.

    Raises:
        DataError: For an id that is empty or has white space in it, which the format cannot hold.
        SettingsError: If the file cannot be made.

    Example:
        >>> from tempfile import mkdtemp
        >>> from radio_dspy import Passage
        >>> ranking = Ranking("why?", (Passage("a", "Yeast dies."), Passage("b", "Ice floats.")), (0.5, 0.5))
        >>> load_run(write_run({"q1": ranking}, Path(mkdtemp()) / "run.txt"))
        {'q1': {'a': 0.5, 'b': 0.49999997}}
    """
    _check_ids([tag, *rankings, *(key for one in rankings.values() for key in one.ids)])
    rows = (
        f"{query} Q0 {passage} {rank} {score:.9g} {tag}"
        for query, ranking in rankings.items()
        for rank, (passage, score) in enumerate(zip(ranking.ids, _falling(ranking.scores), strict=True), start=1)
    )
    return _written(Path(path), rows)


def write_qrels(grades: Mapping[str, Mapping[str, float]], path: str | PathLike[str]) -> Path:
    """Write judgements in TREC's format, ``q1 0 p7 2``; return the file.

    Raises:
        DataError: For an id that is empty or has white space in it, and for a grade that is no whole number.
        SettingsError: If the file cannot be made.
    """
    _check_ids([*grades, *(key for one in grades.values() for key in one)])
    for query, judged in grades.items():
        for passage, grade in judged.items():
            if not float(grade).is_integer():
                raise DataError(f"Grade {grade} of {query!r:.60} and {passage!r:.60}: TREC's are whole numbers.")
    rows = (f"{query} 0 {key} {int(grade)}" for query, judged in grades.items() for key, grade in judged.items())
    return _written(Path(path), rows)


def _falling(scores: Iterable[float]) -> Iterator[float]:
    import numpy as np

    before: Any = np.float32(np.inf)
    for one in scores:
        value = np.float32(one)
        before = value if value < before else np.nextafter(before, np.float32(-np.inf))
        yield float(before)


def _check_ids(ids: Iterable[str]) -> None:
    for one in ids:
        if not one or one.split() != [one]:
            raise DataError(f"The id {one!r:.80} has white space in it or is empty, which TREC's formats cannot hold.")


def _written(path: Path, rows: Iterable[str]) -> Path:
    with replacing(check_file(path, "give another file.")) as temporary:
        text = "".join(f"{row}\n" for row in rows)
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path
