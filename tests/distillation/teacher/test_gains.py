"""Gains are computed by hand from log-probabilities that a table gives."""

import dspy
import pytest
from dspy.utils import DummyLM

from radio_dspy.core.errors import DataError
from radio_dspy.core.passages import NULL_PASSAGE, Passage
from radio_dspy.core.rankings import RankRequest
from radio_dspy.distillation import AnswerGain, AnswerLikelihood, SetGain
from radio_dspy.distillation.teacher import lm_signals
from radio_dspy.distillation.teacher.null_passage import with_null

PASSAGES = tuple(Passage(one, f"tells of {one}") for one in ("clay", "mud", "ice"))


def question(*passages, answers=("evaporation",), key="q"):
    return RankRequest(key, f"Why {key}?", passages or PASSAGES, (0.5,) * len(passages or PASSAGES), answers=answers)


@pytest.fixture
def asked(monkeypatch):
    """Prompts and answers that were asked about; what the answer's tokens get depends on what the prompt tells of."""
    calls = []

    def logprobs(lm, prompt, answer):
        calls.append((prompt, answer))
        told = {one for one in ("clay", "mud", "ice") if f"tells of {one}" in prompt}
        if answer == "heat":  # likelier without any passage than the other answer
            return [-2.0, -1.0]
        if told & {"clay", "mud"}:  # both tell the same
            return [-0.25, -0.75]
        return [-4.0, -4.0] if told else [-3.0, -1.0]

    monkeypatch.setattr(lm_signals, "continuation_logprobs", logprobs)
    return calls


LM = DummyLM({"": {"answer": "x"}})


def test_the_gain_is_the_likelihood_with_a_passage_minus_that_without(asked):
    (scores,) = AnswerGain(LM).score([question()])
    assert scores.tolist() == [-0.5 + 2, -0.5 + 2, -4 + 2]
    assert len(asked) == 4
    assert sum("tells of" not in prompt for prompt, _ in asked) == 1


def test_of_several_answers_the_likeliest_counts_on_each_side(asked):
    (scores,) = AnswerGain(LM).score([question(answers=("evaporation", "heat"))])
    assert scores.tolist() == [-0.5 + 1.5, -0.5 + 1.5, 0.0]


def test_the_null_passage_gains_nothing_and_is_asked_about_beyond_any_depth(asked):
    (scores,) = AnswerGain(LM, depth=1).score([with_null(question())])
    assert scores.tolist() == [1.5, 0.0, 0.0, 0.0], "what is not asked about gets the lowest"
    assert len(asked) == 2
    (likelihoods,) = AnswerLikelihood(LM, depth=1).score([with_null(question())])
    assert likelihoods.tolist() == [-0.5, -2.0, -2.0, -2.0]


def test_gain_and_likelihood_share_what_was_paid_for(asked, tmp_path):
    keep = tmp_path / "kept.jsonl"
    AnswerLikelihood(LM, keep=keep).score([question()])
    before = len(asked)
    AnswerGain(LM, keep=keep).score([question()])
    assert len(asked) == before + 1, "only the question without a passage"
    AnswerGain(LM, keep=keep).score([question()])
    assert len(asked) == before + 1


def test_a_passage_that_repeats_another_gains_the_set_nothing(asked):
    (scores,) = SetGain(LM, k=2).score([question()])
    assert scores.tolist() == [0, 0, 0], "clay and mud tell the same"
    (scores,) = SetGain(LM, k=2).score([question(PASSAGES[0], PASSAGES[2], PASSAGES[1])])
    assert scores.tolist() == [-0.5 + 4, 0.0, 0.0]
    assert len(asked) == 6
    (scores,) = SetGain(LM, k=1).score([with_null(question())])
    assert scores.tolist() == [1.5, 1.5, 1.5, 0.0], "the null passage is in no set"


@pytest.mark.parametrize(
    ("signal", "sizes", "null"),
    [
        (AnswerGain(LM), [1] * 6 + [0] * 2, []),
        (AnswerGain(LM, depth=2), [1] * 4 + [0] * 2, []),
        (AnswerLikelihood(LM, depth=2), [1] * 4, [0, 0]),
        (SetGain(LM, k=2), [2, 1, 1] * 2, []),
        (SetGain(LM), [3, 2, 2, 2] * 2, []),
    ],
)
def test_the_calls_said_before_are_those_made(asked, signal, sizes, null):
    assert signal.call_sizes(3, 2) == sizes
    assert signal.null_sizes(2) == null
    signal.score([question(answers=("evaporation", "heat"))])
    assert len(asked) == len(sizes)


def test_as_a_metric_a_set_is_judged_against_no_passage(asked):
    example = dspy.Example(question="Why q?", answers=["evaporation"])
    metric = SetGain(LM)
    assert metric(example, dspy.Prediction(passages=[PASSAGES[0], PASSAGES[2]])) == 1.5
    assert metric(example, dspy.Prediction(passages=[PASSAGES[2]])) == -2.0
    assert metric(example, dspy.Prediction(passages=[])) == 0.0
    with pytest.raises(DataError, match="needs an example with question and answers"):
        metric(example, dspy.Prediction(answer="x"))


def test_the_null_passage_reads_as_no_passage(asked):
    AnswerLikelihood(LM).score([question(NULL_PASSAGE)])
    lm_signals.best_logprob(LM, "Why q?", [], ["evaporation"])
    assert asked[0] == asked[1]
