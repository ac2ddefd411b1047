import json
import math

import dspy
import pytest

from radio_dspy import metrics
from tests.conftest import shared


@pytest.mark.parametrize(
    ("metric", "key"),
    [(metrics.exact_match, "em"), (metrics.sub_exact_match, "acc"), (metrics.token_f1, "f1")],
)
def test_answer_metrics_agree_with_the_reference(metric, key):
    cases = json.loads(shared("conformance", "answer_metrics.json").read_text())
    assert len(cases) > 20
    for case in cases:
        assert metric(case["prediction"], case["golden_answers"]) == pytest.approx(case[key], abs=1e-9), case


def test_a_lone_answer_is_one_answer_and_no_answer_scores_zero():
    assert metrics.exact_match("Rome", "rome") == 1.0
    assert metrics.token_f1("Rome", []) == 0.0


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
