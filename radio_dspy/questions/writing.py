"""Ask an LM for questions, and whether it knows their answers by itself; each reply is kept the moment it is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dspy

from radio_dspy.lm.calls import Refusals, ask_each, call_key
from radio_dspy.lm.predictors import Predict
from radio_dspy.lm.replies import Reply, read
from radio_dspy.lm.signatures import AnswerFromMemory, GenerateAnswer, WriteQuestion, WriteQuestionAcross
from radio_dspy.questions.planning import Task
from radio_dspy.runs.records import CheckLine, QuestionLine, reader_of
from radio_dspy.runs.run import Run

Written = tuple[str, str]  # question, answer; both empty where nothing came that can be used
Check = tuple[str, tuple[str, ...]]  # a question and the passages that the LM may read to answer it


class QuestionWriter(dspy.Module):
    """Writes a question about one passage or two, and its answer.

    Example:
        >>> from dspy.utils import DummyLM
        >>> with dspy.context(lm=DummyLM([{"question": "What kills yeast?", "answer": "heat"}])):
        ...     QuestionWriter()(["Heat kills yeast."], "about one fact").written
        ['What kills yeast?', 'heat']
    """

    def __init__(self) -> None:
        super().__init__()
        self.one = Predict(WriteQuestion)
        self.across = Predict(WriteQuestionAcross)

    def task(self, passages: Sequence[str], kind: str) -> tuple[Predict, dict[str, str]]:
        """The predictor for so many passages, and its inputs."""
        if len(passages) == 1:
            return self.one, {"passage": passages[0], "kind": kind}
        return self.across, {"first_passage": passages[0], "second_passage": passages[1], "kind": kind}

    def forward(self, passages: Sequence[str], kind: str) -> dspy.Prediction:
        """Write a question.

        Args:
            passages: One or two.
            kind: What kind of question; see ``radio_dspy.questions.planning.STYLES``.

        Returns:
            A prediction whose ``written`` is question and answer, None where one of them is missing.
        """
        predict, inputs = self.task(passages, kind)
        return _written(predict(**inputs))

    async def aforward(self, passages: Sequence[str], kind: str) -> dspy.Prediction:
        """Write a question asynchronously; see ``forward``."""
        predict, inputs = self.task(passages, kind)
        return _written(await predict.acall(**inputs))


def _written(given: Any) -> dspy.Prediction:
    # A lone surrogate, which no file takes, becomes a question mark.
    texts = [str(given.get(name) or "").encode("utf-8", "replace").decode().strip() for name in ("question", "answer")]
    return dspy.Prediction(written=[" ".join(one.split()) for one in texts] if all(texts) else None)


@dataclass
class Asking:
    """Asks the LM, and keeps what it says; what is kept is not asked again.

    Attributes:
        lm: Who is asked.
        run: Keeps each reply, in ``questions.jsonl`` and ``checks.jsonl``.
        num_threads: Calls in flight at the same time.
    """

    lm: dspy.LM
    run: Run
    num_threads: int = 1
    _writer: QuestionWriter = field(default_factory=QuestionWriter)
    _memory: Predict = field(default_factory=lambda: Predict(AnswerFromMemory))
    _reader: Predict = field(default_factory=lambda: Predict(GenerateAnswer))
    _refusals: Refusals = field(default_factory=Refusals)
    _kept: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("questions", "checks"):
            self.run.check_end(name)
        for one in self.run.records("questions", reader_of(QuestionLine)):
            self._kept[one["key"]] = [one["question"], one["answer"]]
        for one in self.run.records("checks", reader_of(CheckLine)):
            self._kept[one["key"]] = [one["reply"]]

    def write(self, tasks: Sequence[Task]) -> list[Written]:
        """Question and answer of each task."""

        def asked(task: Task) -> tuple[str, Callable[[], Reply]]:
            texts = [one.contents for one in task.passages]
            predict, inputs = self._writer.task(texts, task.style.kind)
            return self._key(predict, inputs), lambda: read(
                self._writer, "written", passages=texts, kind=task.style.kind
            )

        def record(task: Task, value: Any) -> dict[str, Any]:
            question, answer = value or ("", "")
            about = {"style": task.style.name, "passages": [one.id for one in task.passages]}
            return {**about, "question": question, "answer": answer}

        found = self._all(tasks, asked, record, "questions")
        return [(one[0], one[1]) for one in found]

    def check(self, checks: Sequence[Check]) -> list[str]:
        """What the LM answers to each question from the passages that it may read, if any."""

        def asked(check: Check) -> tuple[str, Callable[[], Reply]]:
            question, passages = check
            predict = self._reader if passages else self._memory
            inputs = {"question": question, **({"passages": list(passages)} if passages else {})}
            return self._key(predict, inputs), lambda: read(predict, "answer", **inputs)

        def record(check: Check, value: Any) -> dict[str, Any]:
            text = str(value or "").encode("utf-8", "replace").decode()
            return {"question": check[0], "passages": len(check[1]), "reply": text}

        return [one[0] for one in self._all(checks, asked, record, "checks")]

    def _all(
        self,
        items: Sequence[Any],
        asked: Callable[[Any], tuple[str, Callable[[], Reply]]],
        record: Callable[[Any, Any], dict[str, Any]],
        name: str,
    ) -> list[list[str]]:
        calls = [(*asked(item), item) for item in items]
        wanted = {key: (key, item, call) for key, call, item in calls}  # the same question is asked once

        def ask(one: tuple[str, Any, Callable[[], Reply]]) -> Any:
            try:
                reply = one[2]()
            except dspy.LMInvalidRequestError as error:
                self._refusals.take(error)
                return None  # this one is refused; the others may well be answered
            if reply.value is None:
                self._refusals.unreadable(reply.unreadable, reply.tries)
            else:
                self._refusals.answered()
            return reply.value

        def keep(one: tuple[str, Any, Callable[[], Reply]], value: Any) -> None:
            key, item, _ = one
            line = record(item, value)
            self._kept[key] = [line["question"], line["answer"]] if name == "questions" else [line["reply"]]
            if value is not None or not self._refusals.in_doubt:  # a wrong key must not make every question a bad one
                self.run.append_record(name, {"key": key, **line})

        ask_each(
            self.lm,
            [one for key, one in wanted.items() if key not in self._kept],
            ask,
            keep,
            title=name,
            unit="question",
            kept=f"All replies so far are kept in {self.run.path}; the same call with this run_dir goes on from there.",
            num_threads=self.num_threads,
            show_progress=False,
        )
        return [self._kept[key] for key, _, _ in calls]

    def _key(self, predict: Predict, inputs: Mapping[str, Any]) -> str:
        """A hash of all that decides a reply."""
        signature = predict.signature
        fields = [[name, str(one.json_schema_extra)] for name, one in signature.fields.items()]
        demos = [dict(one) for one in predict.demos]
        return call_key(self.lm, self.lm.kwargs, [signature.instructions, fields, demos, dict(inputs)])
