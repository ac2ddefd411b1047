"""What a metric may be and give: a bad one is told before anything is paid for, with its name, question and value."""

import asyncio
import functools
import math
from decimal import Decimal
from fractions import Fraction

import dspy
import numpy as np
import pytest
import torch
from dspy.utils import DummyLM

import radio_dspy as radio
from radio_dspy import Passage, RankRequest
from radio_dspy.core.errors import SettingsError
from radio_dspy.distillation import AnswerCorrectness
from radio_dspy.evaluation.metric_values import check_metric, metric_value
from tests.conftest import scripted
from tests.fault_server import FaultServer
from tests.settings import radio_of

EXAMPLE = dspy.Example(id="q7", question="Why?", answers=["so"]).with_inputs("question")
PREDICTION = dspy.Prediction(answer="so")


class Judge(dspy.Module):
    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> score: float")

    def forward(self, example, prediction, trace=None):
        return self.ask(question=example.question).score


async def late(example, prediction):
    return 1.0


def strict(example, prediction, trace, name, traced):
    assert (trace, name, traced) == (None, None, None)
    return 0.25


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (True, 1.0),
        (0, 0.0),
        (-2.5, -2.5),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3.0),
        (np.bool_(True), 1.0),
        (np.array(0.5), 0.5),
        (Decimal("0.25"), 0.25),
        (dspy.Prediction(score=0.75, feedback="close"), 0.75),
        (dspy.Prediction(score=np.float64(0.75)), 0.75),
        (Fraction(1, 4), 0.25),
        (torch.tensor(0.5), 0.5),
    ],
)
def test_numbers_of_every_kind_are_taken(given, value):
    assert metric_value(lambda example, prediction: given, EXAMPLE, PREDICTION, "q7") == (value, "")


@pytest.mark.parametrize(
    "given",
    [
        "1.0",
        None,
        [],
        {"score": 1},
        math.inf,
        -math.inf,
        math.nan,
        1e200,
        10**400,
        1j,
        np.ones(2),
        dspy.Prediction(),
        (0.5, "close"),
        torch.ones(2),
    ],
    ids=repr,
)
def test_anything_else_is_told_with_metric_question_and_value(given):
    def closeness(example, prediction, trace=None):
        return given

    with pytest.raises(SettingsError, match=r"(?s)closeness gave .* for question 'q7'"):
        metric_value(closeness, EXAMPLE, PREDICTION, "q7")


def test_what_it_raises_is_told_with_its_cause():
    def broken(example, prediction):
        return example.gold

    with pytest.raises(SettingsError, match=r"broken failed on question 'q7' \(AttributeError") as caught:
        metric_value(broken, EXAMPLE, PREDICTION, "q7", " Kept in X.")
    assert isinstance(caught.value.__cause__, AttributeError)
    assert str(caught.value).endswith("Kept in X.")


def test_a_judges_unreadable_reply_counts_as_0():
    with dspy.context(lm=DummyLM([{"score": "no number at all"}] * 9)):
        value, failure = metric_value(Judge(), EXAMPLE, PREDICTION, "q7")
    assert value == 0.0
    assert failure.startswith("the metric's LM sent")


@pytest.mark.parametrize(
    "metric",
    [strict, Judge(), functools.partial(strict, trace=None, name=None, traced=None), lambda one, two: 1, max],
    ids=["five arguments", "module", "partial", "two", "built in"],
)
def test_what_can_be_called_is_taken(metric):
    check_metric(metric)


def test_gepas_five_arguments_are_given():
    assert metric_value(strict, EXAMPLE, PREDICTION, "q7") == (0.25, "")


@pytest.mark.parametrize(
    "metric",
    [5, "exact", lambda one: 1, lambda: 1, late, lambda a, b, c, d: 1, dspy.evaluate.SemanticF1],
    ids=["number", "text", "one", "none", "asynchronous", "four", "class"],
)
def test_what_cannot_be_called_is_refused_at_construction(metric):
    with pytest.raises(SettingsError, match="metric"):
        radio_of(metric=metric)


def test_a_coroutine_that_only_shows_when_called_is_told():
    with pytest.raises(SettingsError, match="gave <coroutine"):
        metric_value(lambda example, prediction: late(example, prediction), EXAMPLE, PREDICTION, "q7")
    asyncio.run(late(EXAMPLE, PREDICTION))


def test_a_bad_metric_ends_a_compile_before_a_rationale_is_asked_for(topic, index, small, tmp_path):
    asked = scripted(rationale="because")
    program = radio.RetrieveRerankAnswer(index, radio.Rerank(small, "bi-encoder"), candidates=5, k=2)
    optimizer = radio_of(
        asked, small, metric=lambda example, prediction: None, candidates=5, epochs=1, max_length=32,
        run_dir=tmp_path / "run",
    )  # fmt: skip
    with dspy.context(lm=scripted(answer="yeast")), pytest.raises(SettingsError, match=r"gave None for question 'kit-"):
        optimizer.compile(program, trainset=topic.train[:4], valset=topic.test[:3])
    assert asked.history == []
    assert not (tmp_path / "run" / "rationales.jsonl").exists()


def test_the_answers_signal_tells_its_metric_too():
    request = RankRequest("q9", "Why?", (Passage("a", "Ice."),), (0.1,), answers=("so",))
    signal = AnswerCorrectness(DummyLM([{"answer": "so"}] * 3), metric=lambda answer, golds: "good")
    with pytest.raises(SettingsError, match=r"gave 'good' for question 'q9'"):
        signal.score([request])


def test_the_answers_signal_counts_an_unreadable_reply():
    request = RankRequest("q9", "Why?", (Passage("a", "Ice."), Passage("b", "Yeast.")), (0.2, 0.1), answers=("so",))

    def reply(prompt):
        return "[" * 1500 if "Ice" in prompt else "[[ ## answer ## ]]\nso\n\n[[ ## completed ## ]]"

    with FaultServer(reply) as server:
        lm = dspy.LM("openai/small", api_base=f"{server.url}/v1", api_key="none", cache=False, num_retries=0)
        assert AnswerCorrectness(lm).score([request])[0].tolist() == [0.0, 1.0]


def test_the_answers_signal_counts_an_unreadable_reply_of_its_metrics_lm():
    request = RankRequest("q9", "Why?", (Passage("a", "Ice."),), (0.2,), answers=("so",))

    def judged(answer, golds):
        with dspy.context(lm=DummyLM([{"score": "no number at all"}] * 9)):
            return dspy.Predict("answer -> score: float")(answer=answer).score

    assert AnswerCorrectness(DummyLM([{"answer": "so"}] * 9), metric=judged).score([request])[0].tolist() == [0.0]
