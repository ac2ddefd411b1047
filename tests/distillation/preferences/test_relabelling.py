"""A small LM looks at suspicious negatives: what it finds helpful becomes a positive."""

import pytest
from dspy.utils import DummyLM

from radio_dspy.core.passages import NULL_PASSAGE, Passage
from radio_dspy.core.rankings import Ranking, RankRequest
from radio_dspy.distillation import FalseNegatives, build_groups
from radio_dspy.distillation.preferences.relabelling import PassageVerdict
from radio_dspy.distillation.preferences.settings import PreferenceSettings
from radio_dspy.runs.run import Run

TEXTS = {
    "best": "Vapour takes heat along.",
    "same": "vapour takes heat along",
    "close": "Heat leaves with vapour, says one.",
    "named": "By evaporation it cools, says another.",
    "vague": "Evaporation is a word.",
    "far": "The jug stood there.",
}
FUSED = {"best": 0.9, "same": 0.89, "close": 0.88, "named": 0.5, "vague": 0.4, "far": 0.1}
REQUEST = RankRequest(
    "q", "Why?", tuple(Passage(key, text) for key, text in TEXTS.items()), (1.0,) * 6, ("evaporation",)
)
RANKING = Ranking("Why?", REQUEST.candidates, tuple(FUSED.values()))


class Judging(DummyLM):
    def __init__(self):
        super().__init__(
            {
                "says one": {"verdict": "Yes, it does."},
                "says another": {"verdict": "No"},
                "is a word": {"verdict": "Perhaps"},
                "": {"verdict": "no"},
            }
        )
        self.calls = 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        return super().__call__(*args, **kwargs)


def built(lm, run=None, **settings):
    settings = PreferenceSettings(sampling="all", false_negatives=FalseNegatives(relabel=lm), **settings)
    return build_groups([REQUEST], [RANKING], settings, run=run)


def test_a_false_negative_becomes_a_positive_and_a_true_one_stays(tmp_path):
    lm = Judging()
    groups, left_out = built(lm, Run(tmp_path))
    assert [one.passage_ids for one in groups] == [("best", "named", "far"), ("close", "named", "far")]
    assert [one.scores for one in groups] == [(0.9, 0.5, 0.1), (0.9, 0.5, 0.1)]
    assert left_out == {
        "same text": 1,
        "became a positive": 1,
        "stayed a negative": 1,
        "contains an answer": 1,  # unclear
    }
    assert lm.calls == 3, "neither the copy nor what nobody suspects"
    assert built(lm, Run(tmp_path))[0] == groups
    assert lm.calls == 3, "kept in the run folder"


def test_the_identity_of_a_run_names_the_judge_and_none_where_there_is_none():
    lm = Judging()
    assert PreferenceSettings(false_negatives=FalseNegatives(relabel=lm)).decisive()["guards"]["relabel"] == lm.model
    assert PreferenceSettings().decisive()["guards"] == {"with_answer": True, "same_text": True, "margin": 0.05}


@pytest.mark.parametrize(("reply", "score"), [("YES!", 1), ("no.", 0), ("not sure", 0.5), ("", 0.5)])
def test_verdicts_are_read_by_their_first_word(reply, score):
    lm = DummyLM([{"verdict": reply}] * 3)
    request = RankRequest("q", "Why?", (REQUEST.candidates[0],), (1.0,), ("evaporation",))
    assert PassageVerdict(lm).score([request])[0].tolist() == [score]


def test_nobody_judges_for_the_null_passage():
    lm = Judging()
    request = RankRequest("q", "Why?", REQUEST.candidates[3:], (1.0,) * 3, ("evaporation",))
    ranking = Ranking("Why?", (*request.candidates, NULL_PASSAGE), (0.2, 0.1, 0.0, 0.9))
    settings = PreferenceSettings(sampling="shift", false_negatives=FalseNegatives(relabel=lm), null_passage=True)
    groups, left_out = build_groups([request], [ranking], settings)
    assert [one.passage_ids for one in groups] == [(NULL_PASSAGE.id, "far")]
    assert (lm.calls, left_out) == (0, {"contains an answer": 1})
