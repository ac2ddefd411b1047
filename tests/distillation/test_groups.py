import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radio_dspy.distillation import PreferenceGroup, preference_groups
from radio_dspy.errors import DataError, SettingsError
from radio_dspy.passages import Passage, Ranking
from tests.conftest import shared

TWENTY = [f"p{i}" for i in range(20)]


@pytest.mark.parametrize("sampling", ["shift", "shift_all_neg", "iteration"])
def test_groups_agree_with_the_reference(sampling):
    for case in json.loads(shared("conformance", "preference_groups.json").read_text()):
        groups = preference_groups([one for one, _ in case["fused"]], sampling)
        expected = [PreferenceGroup(one["pos"][0], tuple(one["neg"])) for one in case["groups"][sampling]]
        assert groups == expected


def test_shift_by_hand():
    assert preference_groups(TWENTY) == [PreferenceGroup("p0", ("p3", "p4", "p6", "p9", "p13", "p18"))]


def test_only_the_first_passages_are_used():
    assert preference_groups(TWENTY, depth=5) == [PreferenceGroup("p0", ("p3", "p4"))]
    assert preference_groups([f"p{i}" for i in range(50)], "shift_all_neg")[0].negatives[-1] == "p19"


@pytest.mark.parametrize(
    ("count", "negatives"),
    [(1, None), (2, ("p1",)), (3, ("p2",)), (4, ("p3",)), (5, ("p3", "p4")), (18, ("p3", "p4", "p6", "p9", "p13"))],
)
def test_short_lists(count, negatives):
    groups = preference_groups(TWENTY[:count])
    assert groups == ([PreferenceGroup("p0", negatives)] if negatives else [])


def test_iteration_in_short_last_block():
    groups = preference_groups(TWENTY[:7], "iteration")
    assert groups[-1] == PreferenceGroup("p5", ("p6",))
    assert len(groups) == 5


def test_a_ranking_gives_the_same_groups_as_its_ids():
    ranking = Ranking("q", tuple(Passage(one, one) for one in TWENTY), tuple(range(20, 0, -1)))
    assert preference_groups(ranking) == preference_groups(TWENTY)


def test_own_sampling():
    groups = preference_groups(TWENTY, lambda ids: [(ids[1], ids[-2:])])
    assert groups == [PreferenceGroup("p1", ("p18", "p19"))]
    with pytest.raises(DataError, match="'elsewhere', which is not in the ranking"):
        preference_groups(TWENTY, lambda ids: [("elsewhere", ids)])


@given(
    st.lists(st.text(min_size=1), unique=True, max_size=40),
    st.sampled_from(["shift", "shift_all_neg", "iteration"]),
    st.integers(2, 30),
)
def test_groups_stay_within_the_ranking(ids, sampling, depth):
    for group in preference_groups(ids, sampling, depth):
        assert group.positive not in group.negatives
        assert {group.positive, *group.negatives} <= set(ids[:depth])
        assert len(set(group.negatives)) == len(group.negatives)


def test_what_does_not_exist_is_refused():
    with pytest.raises(SettingsError, match="sampling must be one of"):
        preference_groups(TWENTY, "shuffle")
    with pytest.raises(SettingsError, match="depth and block must be at least 2"):
        preference_groups(TWENTY, depth=1)
    with pytest.raises(DataError, match="'a' twice"):
        preference_groups(["a", "b", "a"])
