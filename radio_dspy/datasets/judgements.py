"""Relevance judgements: TREC's four columns, BEIR's three, rows such as MTEB's, or a mapping."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Set
from os import PathLike, fspath
from typing import Any

from radio_dspy.core.errors import DataError
from radio_dspy.core.redaction import logger_of
from radio_dspy.core.validation import checked_text, plain_text, shown
from radio_dspy.datasets.reading import Source, as_utf8, file_of, is_parquet, opened, rows_of
from radio_dspy.datasets.shapes import PASSAGE_IDS, QUESTION_IDS, first_of, identifier

logger = logger_of(__name__)
_GRADE = re.compile(r"[+-]?[0-9]{1,9}(\.[0-9]{0,9})?")
_HEADING = re.compile(r"score|grade|rel(evance|evancy)?$|label|judg|rating|value", re.IGNORECASE)  # of the last column
_QUERY, _PASSAGE = ([name for name in names if "id" != name != "_id"] for names in (QUESTION_IDS, PASSAGE_IDS))
_SCORE = ("score", "grade", "relevance", "rel", "label")
Grades = dict[str, dict[str, float]]
Qrels = Source | Mapping[str, Mapping[str, Any] | Iterable[str]]


def read_grades(source: Qrels) -> Grades:
    """For each question the grade of each judged passage; where a pair comes twice, the last counts.

    Raises:
        DataError: For a line that is no judgement, with file and line; for no judgement at all.
    """
    found: Grades = {}
    for where, query, passage, grade in _mapping(source) if isinstance(source, Mapping) else _file(source):
        found.setdefault(checked_text(query, where), {})[checked_text(passage, where)] = _number(where, grade)
    if not found:
        raise DataError(f"{_name(source)}: holds no judgement; give some, or leave qrels out.")
    return found


def fitting(grades: Grades, questions: Iterable[str], source: Qrels, name: str) -> Grades:
    """The judgements of the questions that are loaded; one warning tells how many others there are.

    Raises:
        DataError: If none fits.
    """
    known = set(questions)
    others = [one for one in grades if one not in known]
    if others and len(others) == len(grades):
        raise DataError(
            f"{_name(source)}: judges question {shown(others[0])}, which is not in {name}, and none that is."
        )
    if others:
        count = sum(len(grades[one]) for one in others)
        logger.warning(
            "%s: left out %d judgements of %d questions that are not in %s, the first of them %r.",
            _name(source), count, len(others), name, others[0],
        )  # fmt: skip
    return {one: given for one, given in grades.items() if one in known}


def _name(source: Qrels) -> str:
    return str(fspath(source)) if isinstance(source, str | PathLike) else "qrels"


def _mapping(source: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Any]]:
    for query, given in source.items():
        where = f"qrels of {shown(query)}"
        if isinstance(given, str | bytes) or not isinstance(given, Iterable):
            raise DataError(f"{where}: needs a grade for each passage id, got {shown(given)}.")
        # Those that are relevant; a set has another order in every process.
        ids = sorted(given, key=str) if isinstance(given, Set) else given
        for passage, grade in given.items() if isinstance(given, Mapping) else ((one, 1) for one in ids):
            yield where, plain_text(query, where), plain_text(passage, where), grade


def _file(source: Any) -> Iterator[tuple[str, str, str, Any]]:
    if not isinstance(source, Iterable | PathLike) and not hasattr(source, "to_pylist"):  # Arrow's
        raise DataError(f"qrels: needs a file, rows, or a mapping of grades, got {type(source).__name__}.")
    path = file_of(source) if isinstance(source, str | PathLike) else None
    if path is None or path.name.removesuffix(".gz").endswith((".jsonl", ".json")) or is_parquet(path):
        for place, one in rows_of(source):
            where = place if path else f"qrels, {place}"
            query, passage, score = (first_of(one, names) for names in (_QUERY, _PASSAGE, _SCORE))
            if query is None or passage is None:
                raise DataError(f"{where}: expected 'query-id', 'corpus-id' and 'score', got {shown(dict(one))}.")
            grade = 1 if score is None else one[score]  # NanoBEIR's are all relevant
            yield where, identifier(where, one, [query]), identifier(where, one, [passage]), grade
        return
    try:
        with opened(path) as lines:
            text = lines.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    for number, line in enumerate(text.split("\n"), start=1):
        where = f"{path}:{number}"
        columns = _columns(as_utf8(where, line))
        if not columns or (number == 1 and len(columns) in (3, 4) and _HEADING.search(columns[-1])):
            continue
        if len(columns) not in (3, 4) or not all(columns) or not _GRADE.fullmatch(columns[-1]):
            raise DataError(
                f"{where}: expected query id, passage id and a grade (or query id, 0, passage id and a grade), got "
                f"{columns!r:.200}."
            )
        yield where, columns[0], columns[-2], columns[-1]


def _columns(line: str) -> list[str]:
    """The fields of a line, parted by tabs, where these part it as they should, or by any white space."""
    tabbed = [one.strip() for one in line.strip().split("\t")]
    return tabbed if len(tabbed) in (3, 4) else line.split()


def _number(where: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where}: the grade must be a number, got {shown(value)}.")
    return int(number) if number.is_integer() else number
