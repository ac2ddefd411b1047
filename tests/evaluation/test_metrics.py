import json
import math

import dspy
import pytest

from radio_dspy.core.errors import DataError
from radio_dspy.datasets.loading import load_questions
from radio_dspy.evaluation import metrics, mmlu
from tests.conftest import SAMPLES, shared


@pytest.mark.parametrize(
    ("metric", "key"),
    [(metrics.exact_match, "em"), (metrics.sub_exact_match, "acc"), (metrics.token_f1, "f1")],
)
def test_answer_metrics_agree_with_the_reference(metric, key):
    cases = json.loads((SAMPLES / "reference" / "answer_metrics.json").read_text())
    assert len(cases) > 20
    for case in cases:
        assert metric(case["prediction"], case["golden_answers"]) == pytest.approx(case[key], abs=1e-9), case


def test_a_lone_answer_is_one_answer_and_no_answer_scores_zero():
    assert metrics.exact_match("Rome", "rome") == 1.0
    assert metrics.token_f1("Rome", []) == 0.0


@pytest.mark.parametrize("metric", [metrics.exact_match, metrics.sub_exact_match, metrics.token_f1])
@pytest.mark.parametrize(("one", "other"), [("Cafe\u0301 noir", "caf\u00e9 noir"), ("\u1112\u1161\u11ab", "\ud55c")])
def test_composed_and_decomposed_letters_are_the_same(metric, one, other):
    assert metric(one, [other]) == metric(other, [one]) == 1.0


def test_ndcg_by_hand():
    # Relevant a (rank 2) and b (rank 4) of three: 1/log2(3) + 1/log2(5) over the ideal 1 + 1/log2(3) + 1/2.
    expected = (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3) + 0.5)
    assert metrics.ndcg_at(["x", "a", "y", "b"], {"a", "b", "missing"}, k=10) == pytest.approx(expected)
    assert metrics.ndcg_at(["x", "a"], {"a"}, k=1) == 0.0


def test_recall_and_mrr_by_hand():
    assert metrics.recall_at(["x", "a", "b"], {"a", "b", "c", "d"}, k=2) == 0.25
    assert metrics.mrr(["x", "y", "a", "b"], {"a", "b"}) == pytest.approx(1 / 3)
    assert metrics.mrr(["x"], {"a"}) == 0.0


def test_ties_are_broken_by_rank_and_not_by_id():
    assert metrics.mrr(["z", "a"], {"z"}) == 1.0
    assert metrics.mrr(["a", "z"], {"z"}) == 0.5


def test_many_questions_keep_their_order():
    values = metrics.ranking_metrics([["a"], ["x"], ["b", "a"]], [{"a"}, {"a"}, {"a"}], ("mrr", "recall@1"))
    assert values == {"mrr": [1.0, 0.0, 0.5], "recall@1": [1.0, 0.0, 0.0]}
    assert metrics.mean_metrics(values)["mrr"] == pytest.approx(0.5)


def test_dspy_metric_takes_what_every_optimizer_passes():
    metric = metrics.dspy_metric(metrics.token_f1)
    gold, pred = dspy.Example(question="q", answer="New York"), dspy.Prediction(answer="new york city")
    assert metric(gold, pred, None, "answer", None) == pytest.approx(0.8)


def test_accuracy_compares_letters_and_nothing_more():
    assert metrics.accuracy("b ", ["B"]) == metrics.accuracy("B", "b") == metrics.accuracy("C", ["B", "C"]) == 1.0
    assert metrics.accuracy("\uff22", ["B"]) == 1.0
    assert metrics.accuracy("A", ["B"]) == metrics.accuracy("B. heat", ["B"]) == metrics.accuracy("B", []) == 0.0
    # The article "a" is an answer here, which FlashRAG's normalisation drops.
    assert metrics.accuracy("A", ["B"]) == 0.0
    assert metrics.accuracy("a", ["A"]) == 1.0


def test_an_unreadable_reply_is_never_right():
    assert metrics.accuracy("", [""]) == metrics.accuracy(" ", ["A", ""]) == 0.0
    metric = metrics.dspy_metric(metrics.accuracy)
    assert metric(dspy.Example(answers=["B"]), dspy.Prediction(answer=None)) == 0.0
    assert metric(dspy.Example(answers=["B"], answer="A"), dspy.Prediction(answer="B")) == 1.0
    assert metric.__name__ == "accuracy"


def test_the_categories_are_those_of_the_benchmark():
    assert {name: len(subjects) for name, subjects in mmlu.CATEGORIES.items()} == {
        "STEM": 18,
        "humanities": 13,
        "social sciences": 12,
        "other": 14,
    }
    assert len(mmlu.CATEGORY_OF) == 57
    # Where other lists differ from hendrycks/test.
    for subject, category in {
        "anatomy": "other",
        "business_ethics": "other",
        "econometrics": "social sciences",
        "high_school_statistics": "STEM",
        "human_sexuality": "social sciences",
        "prehistory": "humanities",
        "professional_accounting": "other",
        "professional_law": "humanities",
    }.items():
        assert mmlu.category_of(subject) == category


def test_the_benchmark_has_no_other_subjects():
    subjects = {one.metadata["subject"] for one in load_questions(shared("data", "mmlu", "questions.jsonl"))}
    assert subjects == set(mmlu.CATEGORY_OF)


def test_accuracy_by_category_counts_questions_and_not_subjects():
    subjects = ["astronomy"] * 3 + ["college_physics", "sociology", "virology"]
    assert metrics.accuracy_by_category(subjects, [True, True, False, True, False, 1.0]) == {
        "STEM": 0.75,
        "social sciences": 0.0,
        "other": 1.0,
        "all": pytest.approx(4 / 6),
    }


def test_accuracy_by_category_refuses_what_does_not_fit():
    with pytest.raises(DataError, match="'alchemy' is not one of MMLU's 57 subjects"):
        metrics.accuracy_by_category(["astronomy", "alchemy"], [1, 1])
    with pytest.raises(DataError, match="1 subjects but 2 results"):
        metrics.accuracy_by_category(["astronomy"], [1, 1])
