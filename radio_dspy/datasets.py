"""Corpora and questions from FlashRAG or BEIR JSON Lines, from Hugging Face datasets, and the bundled demo set."""

from __future__ import annotations

import gzip
import json
import logging
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from os import PathLike, fspath
from pathlib import Path
from typing import IO, Any

import dspy

from radio_dspy.errors import DataError
from radio_dspy.passages import Passage, checked_text, is_plain_number, plain_text, shown

logger = logging.getLogger(__name__)

_GZIP = b"\x1f\x8b"
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,9}")

Source = str | PathLike[str] | Iterable[Mapping[str, Any]]


def load_corpus(source: Source) -> list[Passage]:
    r"""Load passages.

    Args:
        source: A JSON Lines file (``.gz`` too), a Hugging Face ``datasets.Dataset``, or any iterable of rows. A row
            is FlashRAG's ``{"id", "contents"}`` with ``contents`` = ``title\ntext``, or BEIR's
            ``{"_id", "title", "text"}``.

    Raises:
        DataError: For a row that cannot be used, with file, line and what is wrong; for a repeated id; for no rows.

    Example:
        >>> load_corpus([{"id": 7, "contents": "Evaporation\nVapour carries warmth away."}])
        [Passage(id='7', text='Vapour carries warmth away.', title='Evaporation')]
    """
    passages = []
    seen = _Ids()
    for where, row in _rows(source):
        key = seen.add(where, row)
        if "contents" in row:
            title, newline, text = _text(where, row, "contents").partition("\n")
            if not newline:
                title, text = "", title
        else:
            title = "" if row.get("title") is None else row["title"]
            text = _text(where, row, "text", instead_of="contents")
        text, title = text.strip(), plain_text(title, f"{where}: 'title'").strip()
        passages.append(Passage(key, text, title) if text else Passage(key, title))
    if not passages:
        raise DataError(f"{_name(source)}: holds no passages.")
    return passages


def load_questions(source: Source, qrels: str | PathLike[str] | None = None) -> list[dspy.Example]:
    """Load questions as DSPy examples whose inputs are ``question`` and, for multiple choice, ``choices``.

    Each example has ``id``, ``question``, ``answers`` (possibly empty), ``answer`` (the first one, for
    demonstrations), ``relevant`` (ids of passages labelled as needed), ``metadata``, and ``choices`` if any. A program
    that takes no choices takes such an example as ``example.with_inputs("question")``.

    Further rows with the same id and question add their answers and labels to the first.

    Args:
        source: As for ``load_corpus``. A row is FlashRAG's ``{"id", "question", "golden_answers", "metadata"}``
            (``metadata.supporting_ids`` names the labelled passages), or BEIR's ``{"_id", "text"}``.
        qrels: BEIR's tab-separated judgements (query id, passage id, grade); grades above 0 count as relevant.

    Raises:
        DataError: As for ``load_corpus``, and for judgements of an unknown question.

    Example:
        >>> one = load_questions([{"id": "q1", "question": "Why?", "golden_answers": ["evaporation"]}])[0]
        >>> one.question, one.answers, list(one.inputs().keys())
        ('Why?', ['evaporation'], ['question'])
    """
    labels = _read_qrels(qrels) if qrels is not None else {}
    examples: dict[str, dspy.Example] = {}
    seen = _Ids()
    for where, row in _rows(source):
        name = "question" if "question" in row else "text"
        question = _text(where, row, name, instead_of="question")
        answers = _strings(where, row, "golden_answers" if "golden_answers" in row else "answers")
        key = _Ids.read(where, row)
        metadata = row.get("metadata") or {}
        if not isinstance(metadata, Mapping):
            raise DataError(f"{where}: 'metadata' must be an object, got {type(metadata).__name__}.")
        if key in examples and examples[key].question == question:  # one line for each of its answers
            _extend(examples[key], answers, _strings(where, metadata, "supporting_ids"))
            continue
        seen.add(where, row)
        fields = {
            "id": key,
            "question": question,
            "answers": answers,
            "answer": answers[0] if answers else "",
            "relevant": labels.pop(key, None) or _strings(where, metadata, "supporting_ids"),
            "metadata": dict(metadata),
        }
        if any(choices := _strings(where, row, "choices")):
            fields["choices"] = choices
        inputs = [name for name in ("question", "choices") if name in fields]
        examples[key] = dspy.Example(**fields).with_inputs(*inputs)
    bare = [key for key, example in examples.items() if not example.answers]
    if bare and len(bare) < len(examples):  # where none has, they are questions alone
        logger.warning(
            "%s: %d of %d questions have no answers (fields golden_answers or answers), the first of them %r.",
            _name(source), len(bare), len(examples), bare[0],
        )  # fmt: skip
    if labels:
        raise DataError(f"{qrels}: judges question {next(iter(labels))!r}, which {_name(source)} does not hold.")
    if not examples:
        raise DataError(f"{_name(source)}: holds no questions.")
    return list(examples.values())


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
    folder = files("radio_dspy.demo")

    def rows(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]

    questions = load_questions(rows("questions.jsonl"))
    train, test = ([one for one in questions if one.metadata["split"] == split] for split in ("train", "test"))
    return Demo(load_corpus(rows("passages.jsonl")), train, test)


def answers_of(example: dspy.Example) -> tuple[str, ...]:
    """The gold answers of an example, whichever of ``answers``, ``golden_answers`` or ``answer`` holds them.

    Raises:
        DataError: If they are no texts; the message names the question.
    """
    for name in ("answers", "golden_answers", "answer"):
        if found := _strings(_named(example), example, name):
            return tuple(one.strip() for one in found if one.strip())
    return ()


def relevant_of(example: dspy.Example) -> frozenset[str]:
    """The ids of the passages that an example names as needed for its answer.

    Raises:
        DataError: If they are no list of ids; the message names the question.
    """
    return frozenset(_strings(_named(example), example, "relevant"))


def check_labels(examples: Iterable[dspy.Example], corpus: Iterable[Passage]) -> None:
    """Make sure that every labelled passage is in the corpus; where there is no corpus, nothing is checked.

    Raises:
        DataError: If one is not; the message names question and passage.
    """
    known = {passage.id for passage in corpus}
    for example in examples if known else ():
        unknown = min(relevant_of(example) - known, default=None)
        if unknown is not None:
            raise DataError(f"{_named(example)}: relevant passage {unknown!r} is not in the corpus.")


def _named(example: dspy.Example) -> str:
    """An example's name for error messages."""
    key = example.get("id")
    return f"Question {shown(example.get('question') if key is None else key)}"


def answer_texts(example: dspy.Example) -> tuple[str, ...]:
    """The gold answers as text: for multiple choice the text of the right option in place of its letter.

    This is what a rationale explains and what a passage may contain.

    Example:
        >>> answer_texts(dspy.Example(question="Is ice dense?", choices=["yes", "no"], answers=["B"]))
        ('no',)
    """
    answers, choices = answers_of(example), _strings(_named(example), example, "choices")
    letters = {chr(ord("A") + position): choice for position, choice in enumerate(choices)}
    return tuple(letters.get(answer.upper(), answer) for answer in answers)


def _rows(source: Source) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each row with a name for error messages: ``FILE:LINE`` or ``row N``."""
    if not isinstance(source, str | PathLike):
        if isinstance(source, bytes | Mapping) or not isinstance(source, Iterable):
            raise DataError(f"Expected a file name or a list of rows, got {type(source).__name__}.")
        for number, row in enumerate(source, start=1):
            if not isinstance(row, Mapping):
                raise DataError(f"row {number}: expected a mapping, got {type(row).__name__}.")
            yield f"row {number}", row
        return
    yield from read_jsonl(source)


def read_jsonl(source: str | PathLike[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the objects of a JSON Lines file (``.gz`` too), each with ``FILE:LINE`` for error messages.

    Raises:
        DataError: If the file is not there, or a line is not a JSON object.
    """
    path = _file(source)
    try:
        with _open(path) as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    where = f"{path}:{number}"
                    yield where, _parse(where, _as_utf8(where, line))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a whole gzip file ({error}).") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error


def _file(source: str | PathLike[str]) -> Path:
    path = Path(fspath(source))
    try:
        found, folder = path.is_file(), path.is_dir()
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise DataError(f"{path!s:.200}: cannot be read ({error.strerror}).") from error
    if not found:
        raise DataError(f"{path}: {'is a folder, not a JSON Lines file' if folder else 'no such file'}.")
    return path


def _open(path: Path) -> IO[str]:
    # A strict decoder fails on the whole block that it reads ahead, many lines before the one to blame.
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="surrogateescape")
    return path.open(encoding="utf-8-sig", errors="surrogateescape")


def _as_utf8(where: str, line: str) -> str:
    """A line in which no byte was anything but UTF-8."""
    if not line.isascii():
        data = line.encode("utf-8", "surrogateescape")
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            hint = "; a packed file's name must end in .gz" if data.startswith(_GZIP) else ""
            raise DataError(f"{where}: not UTF-8 text ({error.reason}){hint}.") from error
    return line


def _parse(where: str, line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error}).") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected a JSON object, got {type(row).__name__}.")
    return row


class _Ids:
    """Reads and checks each row's id; a repeated one is an error that names both rows."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    @staticmethod
    def read(where: str, row: Mapping[str, Any]) -> str:
        value = row.get("id", row.get("_id"))
        whole = isinstance(value, int) and is_plain_number(value)
        if not whole and not (isinstance(value, str) and value.strip()):
            raise DataError(
                f"{where}: needs an 'id' (or '_id') that is a string or a whole number, got {shown(value)}."
            )
        return plain_text(value, f"{where}: 'id'")

    def add(self, where: str, row: Mapping[str, Any]) -> str:
        key = self.read(where, row)
        if key in self._first:
            raise DataError(f"{where}: id {key!r} was already used at {self._first[key]}.")
        self._first[key] = where
        return key


def _text(where: str, row: Mapping[str, Any], name: str, instead_of: str | None = None) -> str:
    value = row.get(name)
    if value is None and instead_of:
        raise DataError(f"{where}: needs {instead_of!r} (or {name!r}); the row has {sorted(map(str, row))!r}.")
    if not isinstance(value, str):
        raise DataError(f"{where}: needs a string {name!r}, got {shown(value)}; the row has {sorted(map(str, row))!r}.")
    if not value.strip():
        raise DataError(f"{where}: {name!r} is empty.")
    return checked_text(value, f"{where}: {name!r}")


def _strings(where: str, row: Mapping[str, Any] | dspy.Example, name: str) -> list[str]:
    value = row.get(name)
    if value is None:
        return []
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, Iterable) or isinstance(value, Mapping | bytes | bytearray):
        raise DataError(f"{where}: {name!r} must be a list of strings, got {type(value).__name__}.")
    values = list(value)
    for one in values:
        if not isinstance(one, str) and not is_plain_number(one):
            raise DataError(f"{where}: {name!r} must be a list of strings, got {shown(one)} in it.")
    return [plain_text(one, f"{where}: {name!r}") for one in values]


def _read_qrels(path: str | PathLike[str]) -> dict[str, list[str]]:
    file = _file(path)
    try:
        lines = file.read_text(encoding="utf-8-sig", errors="surrogateescape").split("\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    labels: dict[str, list[str]] = {}
    for number, line in enumerate(lines, start=1):
        row = _as_utf8(f"{path}:{number}", line).rstrip("\r").split("\t")
        # The first line may be a heading, which ends in a word.
        if row == [""] or (number == 1 and len(row) > 2 and row[-1].strip()[:1].isalpha()):
            continue
        if len(row) < 3 or not _WHOLE_NUMBER.fullmatch(row[-1]):
            raise DataError(
                f"{path}:{number}: expected query id, passage id and a whole-number grade, got {row!r:.200}."
            )
        if int(row[-1]) > 0:
            labels.setdefault(row[0], []).append(row[-2])
    return labels


def _name(source: Source) -> str:
    return str(fspath(source)) if isinstance(source, str | PathLike) else "the rows"
