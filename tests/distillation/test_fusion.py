import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radio_dspy.distillation import fuse, fused_ranking, min_max
from radio_dspy.errors import DataError
from radio_dspy.passages import Passage, RankRequest
from tests.conftest import shared

finite = st.floats(-1e6, 1e6, allow_nan=False)


def test_fuse_agrees_with_the_reference():
    cases = json.loads(shared("conformance", "preference_groups.json").read_text())
    assert len(cases) == 24
    for case in cases:
        ids = list(case["retrieval_scores"])
        weight = case["rationale_weight"]
        fused = fuse(
            {
                "retrieval": [case["retrieval_scores"][one] for one in ids],
                "rationale": [case["rationale_scores"][one] for one in ids],
            },
            {"retrieval": 1 - weight, "rationale": weight},
        )
        expected = dict(map(tuple, case["fused"]))
        assert dict(zip(ids, fused, strict=True)) == pytest.approx(expected, abs=1e-9)
        order = [ids[i] for i in sorted(range(len(ids)), key=lambda i: -fused[i])]
        assert order == [one for one, _ in case["fused"]]


def test_equal_scores_prefer_nothing():
    assert min_max([3.0, 3.0, 3.0]) == [0.0, 0.0, 0.0]
    assert min_max([2.0]) == [0.0]
    assert min_max([]) == []


def test_scores_at_the_ends_of_the_float_range():
    assert min_max([-1.7e308, 1.7e308, 0.0]) == pytest.approx([0.0, 1.0, 0.5])


@given(st.lists(finite, min_size=2, max_size=30), st.integers(1, 1000), finite)
def test_min_max_does_not_see_shift_and_scale(scores, scale, shift):
    moved = [scale * score + shift for score in scores]
    if max(moved) - min(moved) > 1e-3 * max(1.0, abs(shift)):  # else the shift has swallowed the differences
        assert min_max(moved) == pytest.approx(min_max(scores), abs=1e-5)


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=30), st.floats(0, 1))
def test_the_order_of_the_keys_does_not_matter(rows, weight):
    a, b = [row[0] for row in rows], [row[1] for row in rows]
    weights = {"a": weight, "b": 1 - weight}
    assert fuse({"a": a, "b": b}, weights) == fuse({"b": b, "a": a}, dict(reversed(weights.items())))


def test_a_bad_score_names_question_passage_and_signal():
    request = RankRequest("q1", "why?", (Passage("a", "x"), Passage("b", "y")), (1.0, 0.5))
    with pytest.raises(DataError, match=r"'q1', passage 'b': signal 'rationale' scored nan"):
        fused_ranking(request, {"rationale": [0.1, float("nan")]}, {"rationale": 1.0})


def test_ties_keep_the_first_stages_order():
    request = RankRequest("q1", "why?", tuple(Passage(one, one) for one in "abc"), (0.9, 0.8, 0.7))
    assert fused_ranking(request, {"s": [1.0, 1.0, 1.0]}, {"s": 1.0}).ids == ("a", "b", "c")
