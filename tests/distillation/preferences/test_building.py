import json
import unicodedata

import dspy
import numpy as np
import pytest

from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import Ranking, RankRequest
from radio_dspy.distillation.preferences.building import build_groups
from radio_dspy.distillation.preferences.guards import FalseNegatives
from radio_dspy.distillation.preferences.settings import PreferenceSettings
from radio_dspy.distillation.teacher.ranking import fused_rankings
from radio_dspy.retrievers.requests import question_id, rank_requests, usable


class Given:
    """A signal with scores by passage id."""

    def __init__(self, scores, name="given"):
        self.scores, self.name = scores, name

    def score(self, requests):
        return [np.array([self.scores[one.id] for one in request.candidates], np.float32) for request in requests]


def question(key="q", texts=("zero", "one", "two", "three", "four", "five", "six"), answers=("the answer",)):
    passages = tuple(Passage(f"p{i}", f"Passage {text}.", "Title") for i, text in enumerate(texts))
    return RankRequest(key, f"Why {key}?", passages, tuple(1 - i / 10 for i in range(len(texts))), answers)


# Best first: p6, p5, ..., p0, with fused scores 1, 5/6, ..., 0.
SIGNAL = Given({f"p{i}": float(i) for i in range(7)})
CORPUS = [Passage(f"c{i}", f"Corpus passage {i}.") for i in range(50)]


def unguarded(**settings):
    """The paper's way: no negative is left out."""
    return PreferenceSettings(false_negatives=None, **settings)


UNGUARDED = unguarded()


def build(requests=None, settings=UNGUARDED, signals=None, **options):
    requests = requests or [question()]
    return build_groups(requests, fused_rankings(requests, signals or {SIGNAL: 1.0}), settings, **options)


def test_the_papers_way_is_the_default():
    (group,), counts = build()
    assert group.passage_ids[0] == "p6"
    assert group.passage_ids[1:] == ("p3", "p2", "p0")
    assert counts == {}


def test_scores_stay_with_their_texts():
    settings = unguarded(sampling="all", random_negatives=2)
    (group,), _ = build(settings=settings, corpus=CORPUS)
    fused = {passage.contents: i / 6 for i, passage in enumerate(question().candidates)}
    drawn = [passage for passage in CORPUS if passage.contents in group.texts]
    listed = list(group.texts)
    assert len(listed) == 9
    assert listed[0] == "Title\nPassage six."
    assert [fused.get(one, 0.0) for one in listed] == pytest.approx(group.scores)
    assert group.random == len(drawn) == 2
    assert {one for one in listed if one not in fused} == {passage.contents for passage in drawn}
    assert group.scores[-2:] == (0.0, 0.0)
    record = group.as_dict()
    assert record["scores"] == pytest.approx(list(group.scores), abs=1e-6)
    assert [record["positive"], *record["negatives"]] == [f"p{i}" for i in range(6, -1, -1)]
    assert record["random"] == list(group.passage_ids[-2:])
    json.dumps(record)


def test_groups_come_in_the_questions_order_with_their_own_texts():
    signal = Given({"p0": 0.0, "p1": 1.0, "p2": 2.0})
    requests = [question(key, ("x" + key, "y" + key, "z" + key)) for key in ("one", "two")]
    groups, _ = build(requests, unguarded(sampling="iteration"), {signal: 1.0})
    assert [group.id for group in groups] == ["one", "one", "two", "two"]
    for group in groups:
        assert group.query == f"Why {group.id}?"
        assert all(group.id in text for text in group.texts)


def test_answers_reach_training_only_where_the_guard_looks_for_them():
    assert build(settings=PreferenceSettings(false_negatives=FalseNegatives()))[0][0].answers == ("the answer",)
    assert build()[0][0].answers == ()


def test_signals_are_weighed():
    other = Given({f"p{i}": float(-i) for i in range(7)}, name="other")
    (group,), _ = build(signals={SIGNAL: 0.25, other: 0.75})
    assert group.passage_ids[0] == "p0"
    assert group.scores[0] == pytest.approx(0.75)
    with pytest.raises(SettingsError, match="Signals must have different names, got"):
        build(signals={SIGNAL: 0.5, Given(SIGNAL.scores): 0.5})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_signal_that_fails_names_question_and_passage(bad):
    with pytest.raises(DataError, match=f"Question 'q', passage 'p2': signal 'given' scored {bad}"):
        build(signals={Given({**SIGNAL.scores, "p2": bad}): 1.0})


def test_equal_texts_under_different_ids_keep_their_own_places():
    request = question(texts=("same", "same", "other"))
    (group,), _ = build([request], unguarded(sampling="all"), {Given({"p0": 0.0, "p1": 2.0, "p2": 1.0}): 1.0})
    assert group.passage_ids == ("p1", "p2", "p0")
    assert group.scores == (1.0, 0.5, 0.0)


@pytest.mark.parametrize(("count", "groups"), [(1, 0), (2, 1)])
def test_few_candidates(count, groups):
    request = question(texts=("zero", "one")[:count])
    found, _ = build([request], signals={Given({"p0": 1.0, "p1": 1.0}): 1.0})
    assert [group.passage_ids[0] for group in found] == ["p0"] * groups


# Hard negatives


def test_negative_range_come_from_a_window_of_the_fused_list():
    (group,), _ = build(settings=unguarded(sampling="all", negative_range=(2, 4)))
    assert group.passage_ids[1:] == ("p4", "p3")
    assert build(settings=unguarded(depth=3, negative_range=(3, 5))) == ([], {})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"negative_range": (3, 3)}, "negative_range must be"),
        ({"sampling": "shuffle"}, "sampling must be one of"),
        ({"depth": 1}, "depth and block must be at least 2"),
        ({"random_negatives": -1}, "random_negatives must be at least 0, got -1"),
        ({"confident_share": 0.0}, "confident_share must lie above 0"),
    ],
)
def test_settings_are_checked_when_they_are_made(setting, message):
    with pytest.raises(SettingsError, match=message):
        PreferenceSettings(**setting)


# The guard


def test_the_guard_counts_what_it_leaves_out():
    texts = ("the answer, kept apart", "one", "two", "three", "four", "Passage six", "six")
    guard = FalseNegatives(with_answer=True, same_text=False, absolute_margin=0.2)
    requests = [question("first", texts), question("second", texts)]
    groups, counts = build(requests, PreferenceSettings(sampling="all", false_negatives=guard))
    # 1/6 lies within the margin, 2/6 does not.
    assert [group.passage_ids[1:] for group in groups] == [("p4", "p3", "p2", "p1")] * 2
    assert counts == {"contains an answer": 2, "within the margin": 2}


def test_a_group_that_keeps_nothing_is_dropped_and_counted():
    request = question(texts=("the answer one", "the answer two"))
    signal = Given({"p0": 0.0, "p1": 1.0})
    groups, counts = build([request], PreferenceSettings(false_negatives=FalseNegatives()), {signal: 1.0})
    assert (groups, counts) == ([], {"contains an answer": 1, "group dropped": 1})
    assert len(build([request], unguarded(), {signal: 1.0})[0]) == 1


# Random negatives


def drawn(groups):
    return [list(group.passage_ids[-group.random :]) for group in groups]


def test_random_negatives_are_drawn_from_the_corpus_and_repeat():
    requests = [question("one"), question("two")]
    settings = unguarded(sampling="iteration", random_negatives=5)
    first, counts = build(requests, settings, corpus=CORPUS)
    assert drawn(build(requests, settings, corpus=CORPUS)[0]) == drawn(first)
    assert drawn(build(requests[1:], settings, corpus=CORPUS)[0]) == drawn(first)[len(first) // 2 :]
    assert all(len(set(one)) == 5 for one in drawn(first))
    assert len(set(map(tuple, drawn(first)))) == len(first)  # every group gets its own
    assert {one for ids in drawn(first) for one in ids} <= {passage.id for passage in CORPUS}
    assert counts == {}
    other = build(requests, settings, corpus=CORPUS, seed=7)[0]
    assert drawn(other) != drawn(first)


def test_random_negatives_are_not_among_the_candidates():
    request = question()
    settings = unguarded(random_negatives=100)
    (group,), _ = build([request], settings, corpus=[*request.candidates, *CORPUS[:3]])
    assert set(drawn([group])[0]) == {"c0", "c1", "c2"}
    (group,), _ = build([request], settings, corpus=request.candidates)
    assert group.random == 0


def test_random_negatives_hold_no_answer_where_the_guard_looks():
    corpus = [Passage(f"a{i}", f"Here is The Answer, number {i}.") for i in range(4)] + CORPUS[:2]
    guarded, counts = build(
        settings=PreferenceSettings(random_negatives=6, false_negatives=FalseNegatives(absolute_margin=0)),
        corpus=corpus,
    )
    assert set(drawn(guarded)[0]) == {"c0", "c1"}
    assert counts == {"contains an answer": 4}
    free, counts = build(settings=unguarded(random_negatives=6), corpus=corpus)
    assert free[0].random == 6
    assert counts == {}


def test_random_negatives_do_not_repeat_the_positive_under_another_id():
    corpus = [Passage("copy", "TITLE: passage six"), *CORPUS[:2]]
    guard = FalseNegatives(absolute_margin=0)
    guarded, counts = build(settings=PreferenceSettings(random_negatives=3, false_negatives=guard), corpus=corpus)
    assert set(drawn(guarded)[0]) == {"c0", "c1"}
    assert counts == {"same text": 1}
    free, counts = build(settings=unguarded(random_negatives=3), corpus=corpus)
    assert (free[0].random, counts) == (3, {})


SKY = "Why does the sky look blue by day and red in the evening?"
HANGUL = "왜 하늘은 낮에는 파란색으로 보이고 저녁에는 붉은색으로 보이는지 그 이유를 자세히 설명해 주세요"


@pytest.mark.parametrize(
    ("query", "text", "title", "copied"),
    [
        (SKY, "Q: " + SKY, "", True),
        (SKY, "Question 12: " + SKY, "", True),
        (SKY, "3. " + SKY.upper(), "", True),
        (SKY, "\u201c" + SKY + "\u201d", "", True),
        (SKY, SKY, SKY, True),
        (SKY, "\n" * 200 + SKY.replace(" ", "\u00a0"), "", True),
        (SKY, SKY.replace("evening", "eve\u00adning"), "", True),
        (HANGUL, unicodedata.normalize("NFD", HANGUL), "", True),
        ("Где живёт ёж?", "Где живет еж?", "", True),
        ("2001: A Space Odyssey?", "2001: a space odyssey", "", True),
        (SKY, SKY + " Because air scatters blue light.", "", False),
        (SKY, "Q: " + SKY + " A: Because air scatters blue light.", "", False),
        (SKY, "Because air scatters blue light.", SKY, False),
        (SKY, SKY.replace("sky", "sea"), "", False),
    ],
)
def test_the_question_itself_is_no_candidate_however_it_is_written(query, text, title, copied):
    passages = (Passage("x", text, title), Passage("y", "Salt.", ""), Passage("z", "Ice.", ""))
    (kept,), _ = usable([RankRequest("q", query, passages, (0.9, 0.5, 0.1), answers=("scattering",))])
    assert [one.id for one in kept.candidates] == (["y", "z"] if copied else ["x", "y", "z"])


def test_the_guard_counts_nothing_where_it_leaves_nothing_out():
    settings = PreferenceSettings(random_negatives=6, false_negatives=FalseNegatives(absolute_margin=0))
    assert build(settings=settings, corpus=CORPUS)[1] == {}


def test_only_the_questions_on_which_the_teacher_is_surest():
    """Gaps of the fused scores between first and second: a 0.9, b 0.5, c 0.1, d 0.5 (the earlier one of equals)."""
    requests = [question(key) for key in "abcd"]
    seconds = (0.1, 0.5, 0.9, 0.5)
    fused = [
        Ranking(one.query, one.candidates, (1.0, gap, *[0.0] * 5)) for one, gap in zip(requests, seconds, strict=True)
    ]
    for share, kept in ((1.0, "abcd"), (0.75, "abd"), (0.5, "ab"), (0.25, "a"), (0.01, "a")):
        groups, left_out = build_groups(requests, fused, unguarded(confident_share=share))
        assert "".join(one.id for one in groups) == kept
        assert left_out.get("unsure question", 0) == 4 - len(kept)
    single = question("e", texts=("alone",))
    groups, left_out = build_groups([single], [single.ranking()], unguarded(confident_share=0.5))
    assert (groups, left_out) == ([], {})


def test_random_negatives_need_a_corpus():
    with pytest.raises(SettingsError, match="random_negatives needs a corpus"):
        build(settings=unguarded(random_negatives=1))


def test_a_group_keeps_its_record_short():
    """Scores are rounded on disk, not in training."""
    request = question(texts=("zero", "one", "two"))
    (group,), _ = build([request], unguarded(sampling="all"), {Given({"p0": 0.0, "p1": 1.0, "p2": 3.0}): 1.0})
    assert group.as_dict()["scores"] == [1.0, 0.333333, 0.0]
    assert group.scores[1] == 1 / 3


# Ids


def test_a_question_without_an_id_gets_one_from_its_text():
    asked = dspy.Example(question="Why did the dough not rise?")
    assert question_id(asked) == question_id(dspy.Example(question="Why did the dough not rise?", answer="yeast"))
    assert question_id(asked) != question_id(dspy.Example(question="Why did the dough rise?"))
    assert question_id(asked).startswith("q-")
    assert question_id(dspy.Example(id="mine", question="Why?")) == "mine"
    assert question_id(dspy.Example(id=7, question="Why?")) == "7"
    assert question_id(dspy.Example(question="Bad \ud800 text")).startswith("q-")


def test_a_question_that_is_asked_twice_is_retrieved_once():
    class Counted:
        def __init__(self):
            self.asked = []

        def search(self, queries, k):
            self.asked += queries
            return [question(query).ranking() for query in queries]

    retriever = Counted()
    examples = [dspy.Example(id="a", question="Why a?"), dspy.Example(id="b", question="Why b?")] * 2
    requests = rank_requests(examples, retriever, 7)
    assert [one.id for one in requests] == ["a", "b"]
    assert retriever.asked == ["Why a?", "Why b?"]


def test_an_example_without_a_question_is_named():
    with pytest.raises(DataError, match=r"Example 1 has no 'question' \(it has \['answer'\]\)"):
        rank_requests([dspy.Example(question="Why?"), dspy.Example(answer="so")], None, 5)
