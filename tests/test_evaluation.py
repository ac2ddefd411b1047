import dspy
import pytest

from radio_dspy.evaluation import answer_metrics, compare, compare_each, contains_answer, judge
from radio_dspy.passages import Passage, RankRequest
from tests.conftest import scripted

A, B, C = (
    Passage("a", "Salt draws water."),
    Passage("b", "The ham hung in the loft."),
    Passage("c", "Smoke keeps flies off."),
)


def request(key, *, relevant=(), answers=("salt",), passages=(B, A, C)):
    return RankRequest(key, "why?", passages, (0.9, 0.8, 0.7), answers=answers, relevant=frozenset(relevant))


def test_labels_are_used_where_there_are_any_and_unlabelled_questions_are_left_out():
    verdict = judge([request("one", relevant=("c",)), request("two")])
    assert (verdict.source, verdict.relevant, verdict.judged) == ("labels", (frozenset("c"), None), 1)


def test_without_labels_the_passages_that_contain_an_answer_count():
    verdict = judge([request("one"), request("two", answers=())])
    assert (verdict.source, verdict.relevant) == ("answers", (frozenset("a"), None))


def test_an_answer_must_stand_as_whole_words():
    assert contains_answer(A, ["the SALT!"])
    assert not contains_answer(A, ["alt"])
    assert not contains_answer(A, ["", "the"])


def test_rows_are_compared_on_the_same_questions():
    requests = [request("one", relevant=("a",)), request("two", relevant=("b",)), request("three")]
    first = [one.ranking() for one in requests]
    best = [one.ranking() for one in (request("one", passages=(A, B, C)), request("two"), request("three"))]
    assert compare({"first_stage": first, "best": best}, requests, ("mrr",)) == {
        "first_stage": {"mrr": 0.75},
        "best": {"mrr": 1.0},
    }
    assert compare_each({"first_stage": first}, requests, ("mrr",)) == {"first_stage": {"mrr": [0.5, 1.0]}}


def test_no_questions_score_zero():
    assert compare({"base": []}, [], ("mrr",)) == {"base": {"mrr": 0.0}}


def test_answers_are_scored_and_unreadable_ones_are_wrong():
    class Program(dspy.Module):
        def forward(self, question):
            if question == "broken?":
                raise dspy.utils.exceptions.AdapterParseError("Plain", dspy.Signature("question -> answer"), "")
            return dspy.Prediction(answer="It is the salt")

    examples = [
        dspy.Example(question="why?", answers=["salt"]),
        dspy.Example(question="broken?", answers=["salt"]),
        dspy.Example(question="unanswered?", answers=[]),
    ]
    scores = answer_metrics(Program(), examples, scripted(), show_progress=False)
    assert scores["sub_exact_match"] == 0.5
    assert scores["exact_match"] == 0.0
    assert scores["token_f1"] == pytest.approx(0.25)
