"""Check the lines of a run's journals before they are used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, JsonValue, TypeAdapter, ValidationError
from typing_extensions import NotRequired, TypedDict

from radio_dspy.core.errors import DataError
from radio_dspy.core.states import problem_of

Kind = TypeVar("Kind")
Value = Annotated[float, Field(ge=-1e100, le=1e100)]  # as metric_values.py takes them
Score = Annotated[float, Field(ge=-1e30, le=1e30)]  # float32 has room for it


def _passage_row(row: list[Any]) -> list[Any]:
    if not all(isinstance(one, str) for one in row[:3]) or not all(isinstance(one, dict) for one in row[3:]):
        raise ValueError("a passage is [id, text, title], or these and its metadata")
    return row


PassageRow = Annotated[list[JsonValue], Field(min_length=3, max_length=4), AfterValidator(_passage_row)]


class RequestCall(TypedDict):
    """A call of a reranker, in a line of ``requests.jsonl``."""

    seat: Annotated[int, Field(ge=0)]
    query: str
    named: bool
    passages: list[PassageRow]
    scores: NotRequired[list[Score]]


class RequestLine(TypedDict):
    """A line of ``requests.jsonl``: what a question reached."""

    id: str
    key: str
    calls: list[RequestCall]
    error: str
    filtered: NotRequired[bool]
    before: NotRequired[list[str]]


class RationaleLine(TypedDict):
    """A line of ``rationales.jsonl`` or ``samples.jsonl``."""

    id: str
    rationale: str
    key: str
    source: NotRequired[str]
    problem: NotRequired[str]
    retried: NotRequired[bool]


class SignalLine(TypedDict):
    """A line of ``signals.jsonl``, or of the file that a signal keeps its scores in."""

    key: str
    scores: list[Score | None]


class BatchLine(TypedDict):
    """A line of ``batches.jsonl``: requests that are sent, the id under which they were, or that all is kept."""

    tag: str
    keys: NotRequired[list[str]]
    batch: NotRequired[str]
    done: NotRequired[bool]


class JudgedLine(TypedDict):
    """A line of ``judged.jsonl``: a metric's value for a question."""

    key: str
    value: Value
    failure: str


class QuestionLine(TypedDict):
    """A line of ``questions.jsonl``: what an LM wrote about passages; empty where nothing came that can be used."""

    key: str
    question: str
    answer: str


class CheckLine(TypedDict):
    """A line of ``checks.jsonl``: what an LM answers to a made question without its passages."""

    key: str
    reply: str


class TrainingLine(TypedDict):
    """A line of ``training.jsonl``: a training that is finished."""

    key: str
    checkpoint: str | None
    losses: list[float | None]
    seconds: float
    stopped: str


def reader_of(kind: type[Kind]) -> Callable[[Any], Kind]:
    """A reader that checks a record of one kind, or raises a ``DataError`` that says what is wrong with it."""
    adapter = TypeAdapter(kind)

    def read(record: Any) -> Kind:
        try:
            return adapter.validate_python(record, strict=True)
        except ValidationError as error:
            raise DataError(problem_of(error)) from None

    return read
