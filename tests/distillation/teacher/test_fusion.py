import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radio_dspy.core.errors import DataError
from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import RankRequest
from radio_dspy.distillation import fuse, fused_ranking, min_max
from tests.conftest import SAMPLES

thorough = settings(max_examples=200, deadline=None)
finite = st.floats(-1e6, 1e6, allow_nan=False)
whole = st.integers(-(10**6), 10**6)


def asked(*scores, ids=None):
    """A question whose candidates have these first-stage scores."""
    names = ids or [f"p{i}" for i in range(len(scores))]
    return RankRequest("q1", "why?", tuple(Passage(one, f"text of {one}") for one in names), scores)


def test_fuse_agrees_with_the_reference():
    cases = json.loads((SAMPLES / "reference" / "preference_groups.json").read_text())
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
        assert dict(zip(ids, fused, strict=True)) == pytest.approx(expected, rel=0, abs=1e-9)
        order = [ids[i] for i in sorted(range(len(ids)), key=lambda i: -fused[i])]
        assert order == [one for one, _ in case["fused"]]


def test_fused_rankings_agree_with_the_reference():
    for case in json.loads((SAMPLES / "reference" / "preference_groups.json").read_text()):
        ids = list(case["retrieval_scores"])
        retrieval = tuple(case["retrieval_scores"][one] for one in ids)
        signals = {"retrieval": retrieval, "rationale": [case["rationale_scores"][one] for one in ids]}
        weights = {"retrieval": 1 - case["rationale_weight"], "rationale": case["rationale_weight"]}
        ranking = fused_ranking(asked(*retrieval, ids=ids), signals, weights)
        assert list(ranking.ids) == [one for one, _ in case["fused"]]
        assert ranking.scores == pytest.approx([score for _, score in case["fused"]], rel=0, abs=1e-9)


def test_fuse_by_hand():
    fused = fuse({"a": [0, 5, 10], "b": [-1, -3, -2], "c": [7, 7, 7]}, {"a": 0.25, "b": 0.5, "c": 3})
    assert fused == pytest.approx([0.5, 0.125, 0.5])


def test_equal_scores_prefer_nothing():
    assert min_max([3.0, 3.0, 3.0]) == [0.0, 0.0, 0.0]
    assert min_max([2.0]) == [0.0]
    assert min_max([]) == []


def test_scores_at_the_ends_of_the_float_range():
    assert min_max([-1.7e308, 1.7e308, 0.0]) == pytest.approx([0.0, 1.0, 0.5])
    assert min_max([5e-324, 0.0]) == [1.0, 0.0]


# Positive affine changes of a signal. Whole numbers first: below 2**53 every product, sum and difference is exact, and
# a division is rounded from the exact quotient, which the change leaves as it was. So nothing moves by a single bit.


@thorough
@given(st.lists(st.tuples(whole, whole), min_size=1, max_size=30), st.integers(1, 1000), whole, st.floats(0, 1))
def test_fusing_does_not_see_shift_and_scale_of_whole_numbers(rows, scale, shift, weight):
    a, b = [row[0] for row in rows], [row[1] for row in rows]
    weights = {"a": weight, "b": 1 - weight}
    request = asked(*map(float, a))
    before = fused_ranking(request, {"a": a, "b": b}, weights)
    assert fused_ranking(request, {"a": [scale * one + shift for one in a], "b": b}, weights) == before
    assert fused_ranking(request, {"a": a, "b": [scale * one + shift for one in b]}, weights) == before


# Any numbers: scaling and shifting rounds each score by at most the largest magnitude times epsilon, and the rest of
# the arithmetic adds as much again; relative to the span of the scores that is what the result may move. (Where the
# span comes near the smallest floats there is no such epsilon.)


@thorough
@given(st.lists(finite, min_size=1, max_size=30), st.floats(1e-3, 1e3), finite)
def test_min_max_sees_no_more_of_shift_and_scale_than_rounding(scores, scale, shift):
    span = scale * (max(scores) - min(scores))
    largest = scale * max(map(abs, scores)) + abs(shift)
    moved = min_max([scale * score + shift for score in scores])
    if max(scores) == min(scores):
        assert moved == [0.0] * len(scores)
    elif span > 1e-290:
        rounding = 16 * sys.float_info.epsilon * (1 + largest / span)
        assert moved == pytest.approx(min_max(scores), rel=0, abs=rounding)


@thorough
@given(
    st.lists(st.tuples(finite, finite, finite), min_size=1, max_size=30),
    st.tuples(*[st.floats(0, 2)] * 3),
    st.permutations(["a", "b", "c"]),
    st.permutations(["a", "b", "c"]),
)
def test_the_order_of_the_keys_does_not_matter(rows, weights, some, other):
    columns = dict(zip("abc", map(list, zip(*rows, strict=True)), strict=True))
    values = dict(zip("abc", weights, strict=True))
    fused = fuse(columns, values)
    assert fuse({one: columns[one] for one in some}, {one: values[one] for one in other}) == fused
    request = asked(*(row[0] for row in rows))
    assert fused_ranking(request, {one: columns[one] for one in some}, values).scores == tuple(
        sorted(fused, reverse=True)
    )


@thorough
@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=30), st.floats(0, 1))
def test_every_candidate_is_ranked_once_and_scores_lie_between_0_and_1(rows, weight):
    request = asked(*(row[0] for row in rows))
    signals = {"a": [row[0] for row in rows], "b": [row[1] for row in rows]}
    ranking = fused_ranking(request, signals, {"a": weight, "b": 1 - weight})
    assert sorted(ranking.ids) == sorted(one.id for one in request.candidates)
    assert list(ranking.scores) == sorted(ranking.scores, reverse=True)
    assert all(0 <= one <= 1 + 1e-15 for one in ranking.scores)


# Degenerate inputs


def test_ties_keep_the_first_stages_order():
    request = asked(0.9, 0.8, 0.7)
    assert fused_ranking(request, {"s": [1.0, 1.0, 1.0]}, {"s": 1.0}).ids == ("p0", "p1", "p2")
    assert fused_ranking(request, {"s": [1.0, 2.0, 1.0]}, {"s": 1.0}).ids == ("p1", "p0", "p2")


def test_a_signal_whose_scores_all_tie_leaves_the_order_to_the_others():
    ranking = fused_ranking(asked(0.9, 0.8, 0.7), {"tied": [4, 4, 4], "other": [1, 2, 3]}, {"tied": 0.5, "other": 0.5})
    assert ranking.ids == ("p2", "p1", "p0")
    assert ranking.scores == (0.5, 0.25, 0.0)


def test_one_candidate_and_none():
    one = fused_ranking(asked(0.9), {"s": [3.0]}, {"s": 1.0})
    assert (one.ids, one.scores) == (("p0",), (0.0,))
    assert fused_ranking(asked(), {"s": []}, {"s": 1.0}).ids == ()


def test_equal_texts_under_different_ids_keep_their_own_scores():
    passages = (Passage("first", "same"), Passage("second", "same"), Passage("third", "other"))
    ranking = fused_ranking(RankRequest("q", "why?", passages, (3.0, 2.0, 1.0)), {"s": [0.0, 1.0, 0.5]}, {"s": 1.0})
    assert dict(zip(ranking.ids, ranking.scores, strict=True)) == {"first": 0.0, "second": 1.0, "third": 0.5}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_bad_score_names_question_passage_and_signal(bad):
    with pytest.raises(DataError, match=rf"'q1', passage 'p1': signal 'rationale' scored {bad}"):
        fused_ranking(asked(1.0, 0.5), {"rationale": [0.1, bad]}, {"rationale": 1.0})
    with pytest.raises(DataError, match=rf"Signal 'rationale': The score at position 1 is {bad}"):
        fuse({"rationale": [0.1, bad]}, {"rationale": 1.0})


@pytest.mark.parametrize(
    ("signals", "weights", "message"),
    [
        ({}, {}, "Nothing to fuse"),
        ({"a": [1.0]}, {"b": 1.0}, r"Signals \['a'\] and weights \['b'\] must have the same names"),
        ({"a": [1.0], "b": [1.0, 2.0]}, {"a": 1, "b": 1}, "the same candidates, got lengths"),
        ({"a": [1.0]}, {"a": -0.1}, "The weight of signal 'a' is -0.1"),
        ({"a": [1.0]}, {"a": float("nan")}, "The weight of signal 'a' is nan"),
    ],
)
def test_what_does_not_fit_together_is_refused(signals, weights, message):
    with pytest.raises(DataError, match=message):
        fuse(signals, weights)


def test_too_few_scores_name_question_and_signal():
    with pytest.raises(DataError, match="Question 'q1': signal 's' has 1 scores for 2 candidates"):
        fused_ranking(asked(1.0, 0.5), {"s": [1.0]}, {"s": 1.0})
