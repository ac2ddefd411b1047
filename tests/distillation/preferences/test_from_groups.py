from radio_dspy.datasets.groups import load_groups
from radio_dspy.distillation.preferences.from_groups import groups_of, rank_requests_of

ROW = {"query": "why?", "pos": ["yeast", "heat"], "neg": ["ice", "salt", "stone"]}
SCORED = {**ROW, "pos_scores": [0.9, 1], "neg_scores": [0.1, 0.3, 0.2]}


def test_a_group_for_each_positive():
    groups, left_out, skipped = groups_of(load_groups([SCORED]), None, seed=1)
    assert [one.positive for one in groups] == ["yeast", "heat"]
    assert all(one.negatives == ("ice", "salt", "stone") for one in groups)
    assert groups[1].scores == (1.0, 0.1, 0.3, 0.2)
    assert (left_out, skipped) == ({}, {})
    assert groups_of(load_groups([ROW]), None, seed=1)[0][0].scores == ()


def test_drawn_negatives_keep_their_scores_and_repeat_with_the_seed():
    rows = load_groups([{**SCORED, "neg": list("abcdefgh"), "neg_scores": [i / 10 for i in range(8)]}])
    (one, other), _, _ = groups_of(rows, 3, seed=1)
    assert len(set(one.negatives)) == 3
    assert one.scores[1:] == tuple("abcdefgh".index(text) / 10 for text in one.negatives)
    assert one.negatives != other.negatives  # each positive draws its own
    assert groups_of(rows, 3, seed=1)[0] == [one, other]
    assert groups_of(rows, 3, seed=2)[0] != [one, other]


def test_what_is_no_negative_is_counted():
    rows = [{"query": "q", "pos": ["a"], "neg": ["a", "a", "b", "b"]}, {"query": "r", "pos": ["c"], "neg": ["c"]}]
    groups, left_out, skipped = groups_of(load_groups([*rows, {**ROW, "neg": []}]), 7, seed=1)
    assert [(one.positive, one.negatives) for one in groups] == [("a", ("b",))]
    assert left_out == {"repeats a positive": 2}
    assert skipped == {"without a negative": 2}


def test_the_question_itself_is_neither_positive_nor_negative():
    rows = [
        {"query": "Why is it cold?", "pos": ["why is it COLD", "vapour"], "neg": ["Vapour!", "ice", "Why is it cold"]},
        {"query": "Who?", "pos": ["who"], "neg": ["Ann"]},
    ]
    groups, left_out, skipped = groups_of(load_groups(rows), None, seed=1)
    assert [(one.positive, one.negatives) for one in groups] == [("vapour", ("ice",))]
    assert left_out == {"the question itself": 3, "repeats a positive": 1}
    assert skipped == {"without a positive": 1}
    (request,) = rank_requests_of(load_groups(rows))
    assert ([one.text for one in request.candidates], request.relevant) == (["ice", "vapour"], {"pos-0"})


def test_a_reranker_that_tells_nothing_apart_is_not_flattered():
    (request,) = rank_requests_of(load_groups([ROW, {**ROW, "neg": []}]))
    assert [one.text for one in request.candidates] == ["ice", "salt", "stone", "yeast", "heat"]
    assert request.relevant == {"pos-0", "pos-1"}
    assert request.candidates[3].id == "pos-0"
