"""The null passage takes its place among a question's candidates."""

import numpy as np
import pytest

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.passages import NULL_PASSAGE, Passage
from radio_dspy.core.rankings import RankRequest
from radio_dspy.distillation import RetrievalScore, build_groups, fused_rankings
from radio_dspy.distillation.preferences.guards import FalseNegatives
from radio_dspy.distillation.preferences.sampling import with_null_groups
from radio_dspy.distillation.preferences.settings import PreferenceSettings
from radio_dspy.distillation.teacher.null_passage import bare, with_null, without_null

NULL = NULL_PASSAGE.id


class Gain:
    """A signal that knows nothing: given gains by passage id."""

    name, reads_null = "gain", True

    def __init__(self, **gains):
        self.gains = {**gains, NULL: 0.0}

    def score(self, requests):
        return [np.array([self.gains[one.id] for one in request.candidates], np.float32) for request in requests]


def question(*ids, answers=()):
    passages = tuple(Passage(one, f"tells of {one}") for one in ids)
    return RankRequest("q", "Why?", passages, tuple(1 - i / 10 for i in range(len(ids))), answers)


def test_nothing_ranks_by_the_signals_that_know_it_and_at_the_mean_of_the_others():
    request = question("a", "b")  # gains scaled: 1, 0 and 1/3 of nothing; the first stage's: 1, 0 and their mean
    (ranking,) = fused_rankings([request], {Gain(a=2, b=-1): 0.5, RetrievalScore(): 0.5}, null_passage=True)
    assert ranking.ids == ("a", NULL, "b")
    assert ranking.scores == pytest.approx((1, 5 / 12, 0))
    assert bare(ranking).ids == ("a", "b")
    assert bare(ranking).scores == pytest.approx((1, 0))
    assert without_null(with_null(request)) == request == without_null(request)


def test_a_teacher_that_cannot_know_nothing_is_refused():
    with pytest.raises(SettingsError, match="give signals= with AnswerGain"):
        fused_rankings([question("a", "b")], {RetrievalScore(): 1.0}, null_passage=True)


@pytest.mark.parametrize(
    ("null", "listwise", "groups"),
    [
        (0.5, False, [("a", ("b", "c", "d", NULL)), (NULL, ("c", "d"))]),
        (0.0, False, [("a", ("b", "c", "d", NULL))]),
        (1.0, False, [(NULL, ("a", "b", "c", "d"))]),
        (0.9, False, [(NULL, ("b", "c", "d"))]),  # level with the positive: neither is preferred
        (0.5, True, [("a", ("b", NULL, "c", "d"))]),
        (1.0, True, [(NULL, ("a", "b", "c", "d"))]),
    ],
)
def test_groups_on_both_sides_of_nothing(null, listwise, groups):
    fused = {"a": 0.9, "b": 0.7, "c": 0.3, "d": 0.1, NULL: null}
    assert with_null_groups([("a", ("b", "c", "d"))], fused, listwise=listwise) == groups


def test_groups_are_built_with_an_empty_text_and_guarded():
    request = question("a", "b", "c", "d", "e", answers=("of e",))
    signals = {Gain(a=4, b=2, c=1, d=-1, e=-2): 1.0}
    rankings = fused_rankings([request], signals, null_passage=True)
    settings = PreferenceSettings(null_passage=True, sampling="shift_all_neg")
    groups, left_out = build_groups([request], rankings, settings)
    assert [one.passage_ids for one in groups] == [("a", "d", NULL), (NULL, "d")]
    assert groups[1].texts == ("", "tells of d")
    assert groups[1].scores == pytest.approx((2 / 6, 1 / 6))
    assert left_out == {"contains an answer": 2}
    close = PreferenceSettings(null_passage=True, false_negatives=FalseNegatives(absolute_margin=0.7))
    groups, left_out = build_groups([request], rankings, close)
    assert [one.passage_ids for one in groups] == [("a", "d")]
    assert left_out == {"within the margin": 2, "contains an answer": 2, "group dropped": 1}


def test_without_it_nothing_is_as_before():
    assert "null_passage" not in PreferenceSettings().decisive()
    assert PreferenceSettings(null_passage=True).decisive()["null_passage"]
