"""Corpora and questions from files, tables and named data sets, and the bundled demo set."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import dspy

from radio_dspy.core.errors import DataError
from radio_dspy.core.passages import Passage, content_id
from radio_dspy.core.redaction import logger_of
from radio_dspy.core.validation import is_blank, json_fields, plain_text
from radio_dspy.datasets.feedback import settled
from radio_dspy.datasets.judgements import Grades, Qrels, fitting, read_grades
from radio_dspy.datasets.named import open_named
from radio_dspy.datasets.reading import BlankRowError, LeftOut, Source, is_empty, is_missing, name_of, plain, rows_of
from radio_dspy.datasets.reading import read_jsonl as read_jsonl
from radio_dspy.datasets.shapes import (
    LABELS,
    PASSAGE_IDS,
    QUESTION_IDS,
    QUESTIONS,
    TEXTS,
    first_of,
    golds,
    identifier,
    lettered,
    options_of,
    strings,
    text_of,
    unread_answers,
)

logger = logger_of(__name__)
_TITLES = ("title", "page_name")


def load_corpus(source: Source) -> list[Passage]:
    r"""Load passages.

    A title alone is a passage. What a row has in ``metadata`` or ``meta`` becomes the passage's ``metadata``: values of
    JSON types, and dates as ISO text. Rows with neither title nor text, and further copies of a row, are left out with
    one warning.

    Args:
        source: A JSON Lines file or one JSON array (``.gz`` too), a Parquet file, the name of a data set
            (``beir:scifact``, ``ir_datasets:beir/scifact/test``, ``hf:mteb/scifact``; see docs/data.md), a Hugging
            Face ``datasets.Dataset``, a pandas, polars or Arrow table, a mapping of rows or texts by id, documents of
            LangChain, Haystack or LlamaIndex, or any iterable of rows. A row is FlashRAG's ``{"id", "contents"}`` with
            ``contents`` = ``title\ntext``, or BEIR's ``{"_id", "title", "text"}``.

    Raises:
        DataError: For a row that cannot be used, with file, line and what is wrong; for an id that two different rows
            have; for no rows.

    Example:
        >>> load_corpus([{"id": 7, "contents": "Evaporation\nVapour carries warmth away."}])
        [Passage(id='7', text='Vapour carries warmth away.', title='Evaporation')]
    """
    passages: dict[str, Passage] = {}
    places: dict[str, str] = {}
    left_out = LeftOut(source, "passages")
    for where, passage in passages_of(source, left_out):
        key = passage.id
        if passages.get(key) == passage:
            left_out.add(repr(key), BlankRowError(f"{where}: the same as {places[key]}."))
        elif key in passages:
            raise DataError(f"{where}: id {key!r} was already used at {places[key]}.")
        else:
            passages[key], places[key] = passage, where
    left_out.tell(len(passages))
    return list(passages.values())


def passages_of(source: Source, left_out: LeftOut) -> Iterator[tuple[str, Passage]]:
    """Yield the passages of ``load_corpus`` as they are read, each with its place; ids may come again.

    Args:
        source: As there.
        left_out: Counts the rows that hold nothing.
    """
    for where, row in rows_of(open_named(source, "corpus")[0]):
        key = identifier(where, _with_metadata(row, PASSAGE_IDS), PASSAGE_IDS)
        try:
            passage = _passage(where, key, row)
        except BlankRowError as error:
            left_out.add(repr(key), error)
        else:
            yield where, passage


def _passage(where: str, key: str, row: Mapping[str, Any]) -> Passage:
    heads = _with_metadata(row, _TITLES)
    given = next((heads[one] for one in _TITLES if not is_missing(heads.get(one))), None)
    title = "" if is_missing(given) else plain_text(given, f"{where}: 'title'").strip()
    title = "" if is_blank(title) else title
    name = first_of(row, ("contents", *TEXTS))
    if name is None:
        raise DataError(f"{where}: needs 'contents' (or 'text'); the row has {sorted(map(str, row))!r:.300}.")
    try:
        text = text_of(where, row, (name,), name)
    except BlankRowError:
        if not title:
            raise
        return Passage(key, title, metadata=_passage_metadata(where, row))
    if name == "contents":
        head, newline, rest = text.partition("\n")
        if newline and title in ("", head.strip(), head.strip(' "')):  # a title of its own may not be repeated there
            title, text = head.strip(), rest
    metadata = _passage_metadata(where, row)
    return Passage(key, title, metadata=metadata) if is_blank(text) else Passage(key, text.strip(), title, metadata)


def _passage_metadata(where: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``metadata``, or else of ``meta``; a table may keep them as JSON."""
    try:
        given = next((row[name] for name in ("metadata", "meta") if not is_empty(row.get(name))), None)
        return json_fields(plain(_as_object(given)))
    except RecursionError:
        raise DataError(f"{where}: its metadata is nested too deeply; give fewer levels.") from None


def _with_metadata(row: Mapping[str, Any], names: Sequence[str]) -> Mapping[str, Any]:
    """A row, or its metadata where the row itself has none of these fields and its metadata has."""
    inner = row.get("metadata", row.get("meta"))
    there = any(not is_missing(row.get(name)) for name in names)
    return inner if not there and isinstance(inner, Mapping) and any(name in inner for name in names) else row


def load_questions(source: Source, qrels: Qrels | None = None) -> list[dspy.Example]:
    """Load questions as DSPy examples whose inputs are ``question`` and, for multiple choice, ``choices``.

    Each example has ``id``, ``question``, ``answers`` (possibly empty), ``answer`` (the first one, for
    demonstrations), ``relevant`` (ids of passages labelled as needed), ``metadata``, ``choices`` if any, whose answers
    are letters, and ``grades`` (a passage's grade by its id) with ``qrels``. A program that takes no choices takes such
    an example as ``example.with_inputs("question")``.

    Further rows with the same id and question add their answers and labels to the first. Rows without an id get one
    made from their text. Rows without a question are left out with one warning.

    Args:
        source: As for ``load_corpus``; of a named data set the questions that its judgements judge, with these. A row
            is FlashRAG's ``{"id", "question", "golden_answers", "metadata"}``
            (``metadata.supporting_ids`` names the labelled passages), BEIR's ``{"_id", "text"}``, or one of a known
            dataset: answers in ``answer`` or ``answers`` (SQuAD's and TriviaQA's objects too), options in ``choices``
            or ``options`` (ARC's objects too), the right one in ``answerKey``.
        qrels: TREC's judgements (query id, 0, passage id, grade), BEIR's (query id, passage id, grade), rows with
            these as ``query-id``, ``corpus-id`` and ``score``, or a mapping ``{query id: {passage id: grade}}`` or
            ``{query id: [passage id]}``; grades above 0 count as relevant. Judgements of other questions are left out
            with one warning.

    Raises:
        DataError: As for ``load_corpus``; for a gold answer that names no option; for judgements that fit no question.

    Example:
        >>> one = load_questions([{"id": "q1", "question": "Why?", "golden_answers": ["evaporation"]}])[0]
        >>> one.question, one.answers, list(one.inputs().keys())
        ('Why?', ['evaporation'], ['question'])
    """
    rows, own = open_named(source, "queries")
    grades = read_grades(own if qrels is None else qrels) if qrels is not None or own is not None else None
    examples: dict[str, dspy.Example] = {}
    places: dict[str, str] = {}
    unread: dict[str, None] = {}
    left_out = LeftOut(source, "questions")
    for where, row in settled(rows_of(rows)):
        key = identifier(where, row, QUESTION_IDS) if first_of(row, QUESTION_IDS) else ""
        if own is not None and grades is not None and key not in grades:  # of another split
            continue
        try:
            example = _question(where, key, row, grades)
        except BlankRowError as error:
            left_out.add(repr(key) if key else where, error)
            continue
        key = example.id
        if not example.answers:
            unread |= dict.fromkeys(unread_answers(row))
        if key not in examples:
            examples[key], places[key] = example, where
        elif examples[key].question == example.question:  # one line for each of its answers
            if example.get("choices") != examples[key].get("choices"):
                raise DataError(
                    f"{where}: question {key!r} has other options than at {places[key]}; give each its own id."
                )
            _extend(examples[key], example.answers, example.relevant)
        else:
            raise DataError(f"{where}: id {key!r} was already used at {places[key]}.")
    left_out.tell(len(examples))
    _tell_bare(source, examples, list(unread))
    if grades and qrels is not None:
        fitting(grades, examples, qrels, name_of(source))
    return list(examples.values())


def _question(where: str, key: str, row: Mapping[str, Any], grades: Grades | None) -> dspy.Example:
    question = text_of(where, row, QUESTIONS, "question")
    metadata = _metadata(where, row)
    choices, labels = options_of(where, row)
    key = key or content_id("\n".join([question, *choices]), "q")
    gold = golds(where, row)
    answers = lettered(f"{where}: question {key!r}", gold, choices, labels) if choices else [str(one) for one in gold]
    judged = (grades or {}).get(key, {})
    relevant = [one for one, grade in judged.items() if grade > 0]
    fields = {
        "id": key,
        "question": question,
        "answers": answers,
        "answer": answers[0] if answers else "",
        "relevant": relevant or _labels(where, row, metadata),
        "metadata": metadata,
    }
    if grades is not None:
        fields["grades"] = judged
    if choices:
        fields["choices"] = choices
    return dspy.Example(**fields).with_inputs(*(name for name in ("question", "choices") if name in fields))


def _metadata(where: str, row: Mapping[str, Any]) -> dict[str, Any]:
    given = _as_object(row.get("metadata"))
    given = {} if is_empty(given) else {"metadata": given} if isinstance(given, list) else given  # RAGAS' is a list
    if not isinstance(given, Mapping):
        raise DataError(f"{where}: 'metadata' must be an object, got {type(given).__name__}.")
    subject = {"subject": row["subject"]} if isinstance(row.get("subject"), str) else {}  # MMLU's
    return {**subject, **given}


def _as_object(given: Any) -> Any:
    """An object that a table keeps as JSON; anything else as it is."""
    if isinstance(given, str) and given.lstrip().startswith("{"):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(given)
    return given


def _labels(where: str, row: Mapping[str, Any], metadata: Mapping[str, Any]) -> list[str]:
    named = strings(where, metadata, "supporting_ids")
    if named:
        return named
    for name in LABELS:
        value = plain(row.get(name))
        if isinstance(value, Mapping):  # grades by id
            value = [one for one, grade in value.items() if grade]
        if isinstance(value, str | list | tuple | set | frozenset):
            return strings(where, {name: sorted(value, key=str) if isinstance(value, Set) else value}, name)
    documents = row.get("positive_passages")  # MIRACL's
    labelled = [one for one in documents if isinstance(one, Mapping)] if isinstance(documents, list) else []
    return [identifier(where, one, PASSAGE_IDS) for one in labelled if first_of(one, PASSAGE_IDS)]


def _tell_bare(source: Source, examples: Mapping[str, dspy.Example], unread: Sequence[str]) -> None:
    """Warn of questions without answers; where none has any, and no field looks like one, they are questions alone."""
    bare = [key for key, example in examples.items() if not example.answers]
    if bare and (len(bare) < len(examples) or unread):
        hint = f" Not read as answers: {', '.join(map(repr, unread[:5]))}; rename it to 'answers'." if unread else ""
        logger.warning(
            "%s: %d of %d questions have no answers (golden_answers, answers or answer), the first of them %r.%s",
            name_of(source), len(bare), len(examples), bare[0], hint,
        )  # fmt: skip


def _extend(example: dspy.Example, answers: list[str], relevant: list[str]) -> None:
    """Add the answers and labels of a further line of the same question."""
    example.answers = list(dict.fromkeys([*example.answers, *answers]))
    example.relevant = list(dict.fromkeys([*example.relevant, *relevant]))
    example.answer = example.answers[0] if example.answers else ""


@dataclass(frozen=True)
class Demo:
    """The bundled demo set.

    Attributes:
        passages: The corpus.
        train: Questions to align with.
        test: Held-out questions to judge with.
    """

    passages: list[Passage]
    train: list[dspy.Example]
    test: list[dspy.Example]


def demo() -> Demo:
    """Load the bundled demo set (CC0): the made-up island of Tarnholm, where a question and its passage share a reason.

    Example:
        >>> data = demo()
        >>> len(data.passages) >= 400, len(data.train), len(data.test)
        (True, 160, 80)
    """
    folder = files("radio_dspy.datasets") / "demo"

    def rows(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]

    questions = load_questions(rows("questions.jsonl"))
    train, test = ([one for one in questions if one.metadata["split"] == split] for split in ("train", "test"))
    return Demo(load_corpus(rows("passages.jsonl")), train, test)
