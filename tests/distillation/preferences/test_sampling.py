import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import Ranking, RankRequest
from radio_dspy.distillation import fused_ranking, preference_groups
from tests.conftest import SAMPLES

TWENTY = [f"p{i}" for i in range(20)]


def own(ids):
    """A sampling of one's own: the first against the rest, and the last against the first two."""
    return [(ids[0], ids[1:]), (ids[-1], ids[: min(2, len(ids) - 1)])]


SAMPLINGS = ["shift", "shift_all_neg", "iteration", "all", own]
thorough = settings(max_examples=200, deadline=None)
windows = st.none() | st.tuples(st.integers(0, 15), st.integers(1, 15)).map(lambda one: (one[0], one[0] + one[1]))


@pytest.mark.parametrize("sampling", ["shift", "shift_all_neg", "iteration"])
def test_groups_agree_with_the_reference(sampling):
    cases = json.loads((SAMPLES / "reference" / "preference_groups.json").read_text())
    assert len(cases) == 24
    for case in cases:
        expected = [(one["pos"][0], tuple(one["neg"])) for one in case["groups"][sampling]]
        assert preference_groups([one for one, _ in case["fused"]], sampling) == expected
        # The same from the raw scores.
        ids = list(case["retrieval_scores"])
        retrieval = tuple(case["retrieval_scores"][one] for one in ids)
        request = RankRequest("q", case["query"], tuple(Passage(one, one) for one in ids), retrieval)
        signals = {"retrieval": retrieval, "rationale": [case["rationale_scores"][one] for one in ids]}
        weights = {"retrieval": 1 - case["rationale_weight"], "rationale": case["rationale_weight"]}
        assert preference_groups(fused_ranking(request, signals, weights), sampling) == expected


def test_shift_by_hand():
    assert preference_groups(TWENTY) == [("p0", ("p3", "p4", "p6", "p9", "p13", "p18"))]


def test_only_the_first_passages_are_used():
    assert preference_groups(TWENTY, depth=5) == [("p0", ("p3", "p4"))]
    assert preference_groups([f"p{i}" for i in range(50)], "shift_all_neg")[0][1][-1] == "p19"
    assert preference_groups([f"p{i}" for i in range(50)], "all", 50)[0][1][-1] == "p49"


@pytest.mark.parametrize(
    ("count", "negatives"),
    [(1, None), (2, ("p1",)), (3, ("p2",)), (4, ("p3",)), (5, ("p3", "p4")), (18, ("p3", "p4", "p6", "p9", "p13"))],
)
def test_short_lists(count, negatives):
    groups = preference_groups(TWENTY[:count])
    assert groups == ([("p0", negatives)] if negatives else [])


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("count", range(19))
def test_fewer_than_the_authors_nineteen_give_what_there_is(sampling, count):
    groups = preference_groups(TWENTY[:count], sampling)
    assert bool(groups) == (count >= 2)
    assert all(negatives for _, negatives in groups)
    if sampling != own and groups:
        assert groups[0][0] == "p0"


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_two_candidates_prefer_the_first(sampling):
    assert preference_groups(["a", "b"], sampling)[0] == ("a", ("b",))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_where_all_scores_are_equal_the_first_stages_order_decides(sampling):
    request = RankRequest("q", "why?", tuple(Passage(one, one) for one in TWENTY), tuple(map(float, range(20, 0, -1))))
    tied = fused_ranking(request, {"s": [0.3] * 20}, {"s": 1.0})
    assert preference_groups(tied, sampling) == preference_groups(TWENTY, sampling)


def test_equal_texts_under_different_ids_are_different_passages():
    ranking = Ranking("q", tuple(Passage(one, "the same text") for one in TWENTY), tuple(range(20, 0, -1)))
    assert preference_groups(ranking, "all") == [("p0", tuple(TWENTY[1:]))]


def test_all_by_hand():
    assert preference_groups(["a", "b", "c"], "all") == [("a", ("b", "c"))]


def test_shift_all_neg_by_hand():
    assert preference_groups(TWENTY[:6], "shift_all_neg") == [("p0", ("p3", "p4", "p5"))]


def test_iteration_in_short_last_block():
    groups = preference_groups(TWENTY[:7], "iteration")
    assert groups[-1] == ("p5", ("p6",))
    assert len(groups) == 5


def test_the_block_length_is_a_setting():
    assert preference_groups(["a", "b", "c", "d"], "iteration", block=2) == [("a", ("b",)), ("c", ("d",))]


def test_a_ranking_gives_the_same_groups_as_its_ids():
    ranking = Ranking("q", tuple(Passage(one, one) for one in TWENTY), tuple(range(20, 0, -1)))
    assert preference_groups(ranking) == preference_groups(TWENTY)


def test_negative_range_are_a_window_of_positions():
    assert preference_groups(TWENTY, negative_range=(4, 10)) == [("p0", ("p4", "p6", "p9"))]
    assert preference_groups(TWENTY, "all", negative_range=(5, 8)) == [("p0", ("p5", "p6", "p7"))]
    assert preference_groups(TWENTY, "all", depth=6, negative_range=(4, 99)) == [("p0", ("p4", "p5"))]
    assert preference_groups(TWENTY, negative_range=(19, 20)) == []
    groups = preference_groups(TWENTY, "iteration", negative_range=(2, 7))
    assert groups[:3] == [("p0", ("p2", "p3", "p4")), ("p1", ("p2", "p3", "p4")), groups[2]]
    assert [positive for positive, _ in groups] == ["p0", "p1", "p2", "p3", "p5"]


def test_own_sampling():
    groups = preference_groups(TWENTY, lambda ids: [(ids[1], ids[-2:])])
    assert groups == [("p1", ("p18", "p19"))]
    assert preference_groups(TWENTY, lambda ids: [(ids[0], list(ids[3:5])), (ids[1], [])], 4) == [("p0", ("p3",))]
    with pytest.raises(DataError, match="'elsewhere', which is not in the ranking"):
        preference_groups(TWENTY, lambda ids: [("elsewhere", ids)])
    with pytest.raises(DataError, match="'p19', which is not in the ranking"):  # it is not among the first 5
        preference_groups(TWENTY, lambda ids: [(ids[0], ["p19"])], 5)
    with pytest.raises(DataError, match="'p0' as positive and as its negative"):
        preference_groups(TWENTY, lambda ids: [(ids[0], ids)])


@thorough
@given(
    st.lists(st.text(min_size=1), unique=True, max_size=40),
    st.sampled_from(SAMPLINGS),
    st.integers(2, 50),
    st.integers(2, 8),
    windows,
)
def test_groups_stay_within_the_ranking(ids, sampling, depth, block, negative_range):
    groups = preference_groups(ids, sampling, depth, block=block, negative_range=negative_range)
    for positive, negatives in groups:
        assert negatives
        assert positive not in negatives
        assert {positive, *negatives} <= set(ids[:depth])
        assert len(set(negatives)) == len(negatives)
        if negative_range:
            assert set(negatives) <= set(ids[slice(*negative_range)])
        if sampling != own:  # a passage is preferred only over those that the ranking puts behind it
            places = [ids.index(one) for one in (positive, *negatives)]
            assert places == sorted(places)
    assert groups == preference_groups(ids, sampling, depth, block=block, negative_range=negative_range)


@thorough
@given(
    st.lists(st.tuples(*[st.floats(-1e3, 1e3)] * 3), min_size=1, max_size=30),
    st.tuples(*[st.floats(0, 1)] * 3),
    st.permutations("abc"),
    st.permutations("abc"),
    st.sampled_from(SAMPLINGS),
    st.integers(2, 30),
    windows,
)
def test_the_order_of_the_keys_changes_no_group(rows, weights, some, other, sampling, depth, negative_range):
    passages = tuple(Passage(f"p{i}", "text") for i in range(len(rows)))
    request = RankRequest("q", "why?", passages, tuple(row[0] for row in rows))
    signals = dict(zip("abc", map(list, zip(*rows, strict=True)), strict=True))
    values = dict(zip("abc", weights, strict=True))

    def groups(names, weight_names):
        ranking = fused_ranking(
            request, {one: signals[one] for one in names}, {one: values[one] for one in weight_names}
        )
        return preference_groups(ranking, sampling, depth, negative_range=negative_range)

    assert groups(some, other) == groups("abc", "abc")


def test_what_does_not_exist_is_refused():
    with pytest.raises(SettingsError, match="sampling must be one of"):
        preference_groups(TWENTY, "shuffle")
    with pytest.raises(SettingsError, match="depth and block must be at least 2"):
        preference_groups(TWENTY, depth=1)
    with pytest.raises(SettingsError, match="depth and block must be at least 2"):
        preference_groups(TWENTY, "iteration", block=1)
    with pytest.raises(DataError, match="'a' twice"):
        preference_groups(["a", "b", "a"])


@pytest.mark.parametrize("window", [(5, 5), (6, 5), (-1, 5)])
def test_a_window_that_holds_nothing_is_refused(window):
    with pytest.raises(SettingsError, match=r"negative_range must be \(first, last\) with 0 <= first < last"):
        preference_groups(TWENTY, negative_range=window)
