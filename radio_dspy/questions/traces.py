"""Questions with answers from what a program was asked: MLflow's traces, DSPy's history and traces."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dspy

from radio_dspy.core.errors import DataError, MissingExtraError, SettingsError
from radio_dspy.core.passages import content_id
from radio_dspy.core.redaction import logger_of
from radio_dspy.core.validation import is_blank
from radio_dspy.datasets.questions import as_questions
from radio_dspy.datasets.shapes import QUESTIONS

logger = logger_of(__name__)
_QUESTIONS = (*QUESTIONS, "input", "prompt", "message")
_ANSWERS = ("answer", "response", "output", "result", "text", "content")
_EXPECTED = (
    *("expected_response", "expected_answer", "expected_answers", "expected_output", "ground_truth"),
    *("golden_answers", "gold_answer", "answer", "answers", "response", "reference"),
)
_THUMBS = {
    **dict.fromkeys(("true", "1", "yes", "up", "thumbs_up", "thumbs up", "good", "correct", "\U0001f44d"), True),
    **dict.fromkeys(
        ("false", "0", "no", "down", "thumbs_down", "thumbs down", "bad", "incorrect", "\U0001f44e"), False
    ),
}
_FIELD = re.compile(r"^\[\[ ## (\w+) ## \]\]\s*$", re.MULTILINE)
_END_OF_INPUTS = "\nRespond with "  # how DSPy's adapters go on after the last input


@dataclass(frozen=True, slots=True)
class _Seen:
    """One question that was asked.

    Attributes:
        source: ``mlflow`` or ``dspy``.
        key: The trace's id; empty where there is none.
        inputs: What the program or the LM was given.
        outputs: What came back.
        thumbs: What people said of it.
        expected: What they said that should have come back.
    """

    source: str
    key: str
    inputs: Any
    outputs: Any
    thumbs: tuple[bool, ...] = ()
    expected: tuple[str, ...] = ()


def questions_from_traces(
    traces: Any,
    *,
    question: str | None = None,
    answer: str | None = None,
    feedback: str | None = None,
    thumbs: Mapping[str, bool] | None = None,
    unjudged: bool = False,
) -> list[dspy.Example]:
    """Turn what a program was asked into questions, with the answers that people found good.

    Gold answers are what people said that should have come back (MLflow's expectations), and the program's own answer
    where it has a thumb up and none down. Other questions come without answers: an LM can be asked for these, and the
    rest of this library reads them. What LM judges said of an answer counts only if ``feedback`` names it. Feedback
    that this library's own server keeps is read by ``load_questions``.

    Args:
        traces: The name of an MLflow experiment; what ``mlflow.search_traces`` gives, as a list or a table; entries of
            an LM's ``history``; or entries of ``dspy.settings.trace``: (predictor, inputs, prediction).
        question: Field of the inputs that is the question; None looks for the usual names.
        answer: Field of the outputs that is the answer; None looks for the usual names.
        feedback: Name of the feedback that is a thumb; None takes all that people gave as true or false, up or down.
        thumbs: More thumbs, by a trace's id or a question's text: DSPy's history has none of its own.
        unjudged: Whether the program's own answer is gold where nobody said anything of it.

    Raises:
        DataError: If there is no question in it.
        MissingExtraError: For an experiment's name without MLflow.

    Example:
        >>> from dspy.utils import DummyLM
        >>> lm = DummyLM([{"answer": "heat"}])
        >>> with dspy.context(lm=lm):
        ...     said = dspy.Predict("question -> answer")(question="What kills yeast?")
        >>> one = questions_from_traces(lm.history, thumbs={"What kills yeast?": True})[0]
        >>> one.question, one.answers
        ('What kills yeast?', ['heat'])
    """
    rows, total = [], 0
    for seen in _all(traces, feedback):
        total += 1
        asked = _text(seen.inputs, question, _QUESTIONS)
        if asked is None:
            continue
        said = _text(seen.outputs, answer, _ANSWERS)
        given = {**(thumbs or {})}
        judged = [*seen.thumbs, *(given[key] for key in {seen.key, asked} if key in given)]
        good = all(judged) if judged else None
        gold = [said] if said and (good or (good is None and unjudged)) else []
        metadata = {"source": seen.source, "trace": seen.key, "good": good, "answer": said}
        rows.append(
            {
                "id": content_id(asked, "q"),
                "question": asked,
                "golden_answers": list(dict.fromkeys([*seen.expected, *gold])),
                "metadata": {name: one for name, one in metadata.items() if one not in (None, "")},
            }
        )
    if not rows:
        names = f"the field {question!r}" if question else "a field with a usual name; name it with question="
        raise DataError(f"None of {total} traces has a question: there must be {names}.")
    if len(rows) < total:
        logger.warning("%d of %d traces have no question, and are left out.", total - len(rows), total)
    return as_questions(rows)


def _all(traces: Any, feedback: str | None) -> Iterator[_Seen]:
    if isinstance(traces, str):
        traces = _of_experiment(traces)
    if hasattr(traces, "columns") and hasattr(traces, "to_dict"):  # what search_traces gives by default
        traces = traces.to_dict("records")
    if isinstance(traces, Mapping) or not isinstance(traces, Iterable):
        raise SettingsError(
            f"traces must be an MLflow experiment's name, traces, or an LM's history, got {type(traces).__name__}."
        )
    for number, one in enumerate(traces):
        yield _seen(one, feedback, number)


def _seen(one: Any, feedback: str | None, number: int) -> _Seen:
    if isinstance(one, tuple) and len(one) == 3:  # (predictor, inputs, prediction)
        return _Seen("dspy", "", one[1], _plain(one[2]))
    if isinstance(one, Mapping) and "messages" in one and "outputs" in one:
        return _of_history(one)
    trace = one.get("trace") if isinstance(one, Mapping) else one
    if isinstance(trace, str | Mapping):
        trace = _read_trace(trace)
    if not hasattr(trace, "info") or not hasattr(trace, "data"):
        raise DataError(
            f"Trace {number} is a {type(one).__name__}; give MLflow's traces, or entries of an LM's history."
        )
    return _of_mlflow(trace, feedback)


def _of_experiment(name: str) -> list[Any]:
    mlflow = _mlflow()
    found = mlflow.get_experiment_by_name(name)
    if found is None:
        raise DataError(f"MLflow has no experiment {name!r:.80} at {mlflow.get_tracking_uri()}; set its tracking URI.")
    traces: list[Any] = mlflow.search_traces(locations=[found.experiment_id], return_type="list")
    return traces


def _read_trace(given: str | Mapping[str, Any]) -> Any:
    entities = _mlflow().entities
    try:
        return entities.Trace.from_json(given) if isinstance(given, str) else entities.Trace.from_dict({**given})
    except Exception as error:  # MLflow's own, of many kinds
        raise DataError(f"Not a trace of MLflow's ({type(error).__name__}: {error!s:.120}).") from error


def _mlflow() -> Any:
    try:
        import mlflow
    except ImportError:
        raise MissingExtraError("Traces of MLflow need a package more: pip install 'radio-dspy[tracing]'") from None
    return mlflow


def _of_mlflow(trace: Any, feedback: str | None) -> _Seen:
    """A trace: inputs and outputs of its first span, and what people said of the whole."""
    thumbs: list[bool] = []
    expected: list[str] = []
    for one in getattr(trace.info, "assessments", None) or ():
        if getattr(one, "span_id", None) or getattr(one, "valid", True) is False:
            continue  # of a part of the trace, or replaced by a later one
        value, by = getattr(one, "value", None), str(getattr(one.source, "source_type", ""))
        if type(one).__name__ == "Expectation":
            if one.name in _EXPECTED:
                texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
                expected += [text for text in texts if isinstance(text, str) and not is_blank(text)]
        elif one.name == feedback or (feedback is None and by == "HUMAN"):
            thumb = _THUMBS.get(str(value).strip().lower())
            thumbs += [] if thumb is None else [thumb]
    root = next((one for one in trace.data.spans if one.parent_id is None), None)
    inputs, outputs = (getattr(root, "inputs", None), getattr(root, "outputs", None))
    return _Seen("mlflow", str(getattr(trace.info, "trace_id", "")), inputs, outputs, tuple(thumbs), tuple(expected))


def _of_history(entry: Mapping[str, Any]) -> _Seen:
    """One call of an LM: the fields that DSPy's adapters wrote into the prompt, and those that came back."""
    asked = [one.get("content") for one in entry["messages"] or () if one.get("role") == "user"]
    text = asked[-1] if asked and isinstance(asked[-1], str) else ""
    outputs = entry["outputs"] or ()
    first = next(iter(outputs), "")
    first = first.get("text") if isinstance(first, Mapping) else first
    reply = first if isinstance(first, str) else ""
    # Where the prompt shows no fields it is not told apart from what stands around the question.
    return _Seen("dspy", "", _fields(text), _fields(reply) or _json(reply) or reply)


def _fields(text: str) -> dict[str, str]:
    heads = list(_FIELD.finditer(text))
    ends = [*(one.start() for one in heads), len(text)][1:]
    found = {one[1]: text[one.end() : end] for one, end in zip(heads, ends, strict=True)}
    return {name: value.partition(_END_OF_INPUTS)[0].strip() for name, value in found.items() if name != "completed"}


def _json(text: str) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _plain(value: Any) -> Any:
    return value.toDict() if hasattr(value, "toDict") else value


def _text(held: Any, field: str | None, names: Iterable[str]) -> str | None:
    """The text of a field: the one that is named, else the first with a usual name, else the only text there is."""
    held = _plain(held)
    if isinstance(held, str):
        held = _json(held) or {"": held}
    if not isinstance(held, Mapping):
        return None
    if field is None and isinstance(held.get("messages"), list):  # a chat: what was said last
        said = [one.get("content") for one in held["messages"] if isinstance(one, Mapping)]
        texts = [one for one in said if isinstance(one, str)]
        return texts[-1].strip() if texts and not is_blank(texts[-1]) else None
    wanted = (field,) if field is not None else (*names, *([next(iter(held))] if len(held) == 1 else []))
    for name in wanted:
        value = held.get(name)
        if isinstance(value, str) and not is_blank(value):
            return value.strip()
    return None
