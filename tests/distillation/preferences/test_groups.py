import json

import pytest

from radio_dspy.core.errors import DataError
from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import RankRequest
from radio_dspy.datasets.groups import load_groups, write_groups
from radio_dspy.distillation import PreferenceGroup, PreferenceSettings, RetrievalScore, build_groups, fused_rankings
from radio_dspy.distillation.preferences.from_groups import groups_of

PASSAGES = [Passage(f"p{i}", f"Passage {i}.", "Title") for i in range(9)]
REQUEST = RankRequest("q", "Why?", tuple(PASSAGES[:5]), (5.0, 4.0, 3.0, 2.0, 1.0))


def built(**settings):
    rankings = fused_rankings([REQUEST], {RetrievalScore(): 1.0})
    (group,), _ = build_groups([REQUEST], rankings, PreferenceSettings(**settings), corpus=PASSAGES)
    return group


def test_a_group_needs_a_negative_and_a_score_and_an_id_for_each_passage():
    with pytest.raises(DataError):
        PreferenceGroup("why?", "a", ())
    for wrong in ({"scores": (1.0,)}, {"passage_ids": ("a", "b", "c")}):
        with pytest.raises(DataError, match="for 2 passages"):
            PreferenceGroup("why?", "a", ("b",), **wrong)


def test_the_line_of_a_run_names_passages_and_tells_drawn_ones_apart():
    line = built(random_negatives=9, false_negatives=None, sampling="all").as_dict()
    assert list(line) == ["id", "query", "positive", "negatives", "random", "scores"]
    assert (line["id"], line["positive"], line["negatives"]) == ("q", "p0", ["p1", "p2", "p3", "p4"])
    assert sorted(line["random"]) == ["p5", "p6", "p7", "p8"]
    assert line["scores"] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0, 0.0, 0.0, 0.0]


def test_as_an_example_it_is_what_its_line_loads_as(tmp_path):
    group = built(sampling="all", false_negatives=None)
    (loaded,) = load_groups([json.loads(json.dumps(group.as_dict()))], PASSAGES)
    given = group.as_example()
    assert given.toDict() == loaded.toDict()
    assert write_groups([given], tmp_path / "a").read_bytes() == write_groups([loaded], tmp_path / "b").read_bytes()
    (again,), _, _ = groups_of([given], None, seed=1)
    assert (again.query, again.texts, again.scores) == (group.query, group.texts, group.scores)
    assert "pos_scores" not in PreferenceGroup("why?", "a", ("b",)).as_example()
