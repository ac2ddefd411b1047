from collections import Counter

import pytest

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import RankRequest
from radio_dspy.distillation.preferences.guards import NO_GUARD, FalseNegatives, without_false_negatives
from radio_dspy.distillation.rationales.checks import rationale_problem

POSITIVE = Passage("best", "Vapour takes heat along.", "Cooling")
NAMED = Passage("named", "By Evaporation, the jug cools.")
SAME = Passage("same", "vapour takes the heat along", "Cooling:")
CLOSE = Passage("close", "Heat leaves with the vapour.")
FAR = Passage("far", "The jug stood in the kitchen.")
OTHER = Passage("other", "Vapour takes heat along.")  # the text without the title
PASSAGES = (POSITIVE, NAMED, SAME, CLOSE, FAR, OTHER)
REQUEST = RankRequest("q", "Why?", PASSAGES, tuple(map(float, range(6, 0, -1))), answers=("cold", "the evaporation"))
FUSED = {"best": 0.9, "named": 0.5, "same": 0.4, "close": 0.88, "far": 0.1, "other": 0.2}
GROUP = ("best", ("close", "named", "same", "other", "far"))


def guarded(guard, *groups, fused=FUSED):
    counts = Counter()
    kept = without_false_negatives(REQUEST, groups or (GROUP,), fused, guard, counts)
    return kept, dict(counts)


def test_by_default_each_reason_leaves_out_its_negative():
    kept, counts = guarded(FalseNegatives())
    assert kept == [("best", ("other", "far"))]
    assert counts == {"within the margin": 1, "contains an answer": 1, "same text": 1}


@pytest.mark.parametrize(
    ("guard", "left_out", "reason"),
    [
        (FalseNegatives(with_answer=True, same_text=False, absolute_margin=0), "named", "contains an answer"),
        (FalseNegatives(with_answer=False, same_text=True, absolute_margin=0), "same", "same text"),
        (FalseNegatives(with_answer=False, same_text=False, absolute_margin=0.05), "close", "within the margin"),
    ],
)
def test_each_part_works_alone(guard, left_out, reason):
    kept, counts = guarded(guard)
    assert kept == [("best", tuple(one for one in GROUP[1] if one != left_out))]
    assert counts == {reason: 1}


def test_no_guard_leaves_everything():
    assert guarded(NO_GUARD) == ([GROUP], {})
    doubled = dict.fromkeys(FUSED, 0.3)
    assert guarded(NO_GUARD, fused=doubled) == ([GROUP], {})


def test_the_margin_begins_at_its_value():
    guard = FalseNegatives(with_answer=False, same_text=False, absolute_margin=0.25)
    for score, kept in ((0.75, True), (0.7500001, False), (1.5, False)):
        assert (guard.reason(REQUEST, POSITIVE, FAR, 1.0 - score) == "") is kept


def test_a_group_that_keeps_no_negative_is_dropped_and_the_others_stay():
    gone, stays = ("best", ("named", "close")), ("named", ("far",))
    kept, counts = guarded(FalseNegatives(), gone, stays)
    assert kept == [stays]
    assert counts == {"contains an answer": 1, "within the margin": 1, "group dropped": 1}


def test_counts_add_up_over_questions():
    counts = Counter({"same text": 4})
    for _ in range(2):
        without_false_negatives(REQUEST, [GROUP], FUSED, FalseNegatives(), counts)
    assert counts == {"same text": 6, "contains an answer": 2, "within the margin": 2}


def test_without_answers_no_negative_contains_one():
    request = RankRequest("q", "Why?", PASSAGES, REQUEST.scores)
    assert FalseNegatives().reason(request, POSITIVE, NAMED, 0.9) == ""


def test_a_word_that_holds_the_answer_is_not_the_answer():
    request = RankRequest("q", "Why?", PASSAGES, REQUEST.scores, answers=("vapo", "kit"))
    assert [FalseNegatives().reason(request, POSITIVE, one, 0.9) for one in (CLOSE, FAR)] == ["", ""]


@pytest.mark.parametrize("margin", [-0.01, 1.0, float("nan")])
def test_a_margin_outside_its_range_is_refused(margin):
    with pytest.raises(SettingsError, match=r"margin must lie in \[0, 1\)"):
        FalseNegatives(absolute_margin=margin)


# Rationales

LONG = (
    "A wet clay jug stays cold because its walls are never dry: water seeps outwards through the pores of the clay and "
    "turns into vapour at the surface, and evaporation takes warmth along."
)
COOLS = "clay jug cools water by slow evaporation"  # seven words


@pytest.mark.parametrize(
    ("rationale", "answers", "problem"),
    [
        # Nothing there
        ("", ["evaporation"], "empty"),
        (" \n\t", ["evaporation"], "empty"),
        ("", [], "empty"),
        # Refusals, also those that name the answer
        ("I cannot help with that.", ["evaporation"], "refusal"),
        ("I can't say why it is evaporation.", ["evaporation"], "refusal"),
        ("I\N{RIGHT SINGLE QUOTATION MARK}m sorry, but evaporation is beyond me.", ["evaporation"], "refusal"),
        ("As an AI model, I find evaporation hard.", ["evaporation"], "refusal"),
        ("Sorry, but I do not see the evaporation.", ["evaporation"], "refusal"),
        ("There is not enough information to explain evaporation.", ["evaporation"], "refusal"),
        ("Evaporation? I am unable to tell.", ["evaporation"], "refusal"),
        # No refusals
        (f"{LONG} More I cannot tell.", ["evaporation"], ""),
        ("Heat cannot enter the wet wall, because evaporation takes it away.", ["evaporation"], ""),
        ("Hawaii canned evaporation.", ["evaporation"], ""),
        # The answer
        ("Vapour takes heat along.", ["evaporation"], "answer missing"),
        ("Vapour takes heat along.", ["evaporation", "the vapour"], ""),
        ("THE EVAPORATION!", ["evaporation."], ""),
        ("Evaporation cools.", ["ion"], "answer missing"),
        ("Heat leaves.", [], ""),
        # Two words must be named as they are; of a longer answer half of the words will do
        ("Evaporation cools it.", ["slow evaporation"], "answer missing"),
        ("Evaporation that is slow cools it.", ["slow evaporation"], "answer missing"),
        ("Slow evaporation cools it.", ["slow evaporation"], ""),
        ("Evaporation from the jug.", ["evaporation, jug, clay"], ""),
        ("Evaporation.", ["evaporation, jug, clay"], "answer missing"),
        ("Clay of the jug.", ["clay jug cools water"], ""),
        ("The jug is of clay, and evaporation of water takes heat.", [COOLS], ""),
        ("The jug is of clay, and evaporation takes heat.", [COOLS], "answer missing"),
        # Repetition
        ("evaporation cools the jug because " * 6, ["evaporation"], "repetition"),
        ("evaporation " * 3, ["evaporation"], "repetition"),
        ("evaporation " * 5, ["evaporation"], "repetition"),
        ("evaporation " * 50, ["evaporation"], "repetition"),
        ("Evaporation! Evaporation!", ["evaporation"], ""),
        ("Evaporation needs heat; evaporation takes heat; so evaporation cools.", ["evaporation"], ""),
        (f"{LONG} {LONG}", ["evaporation"], ""),
        (f"{LONG} {LONG} {LONG}", ["evaporation"], "repetition"),
        (" ".join(f"{i}. Evaporation cools the jug." for i in range(1, 9)), ["evaporation"], "repetition"),
        ("\n".join(f"Step {i}: evaporation cools the jug" for i in range(1, 9)), ["evaporation"], "repetition"),
        ("1. Evaporation needs heat. 2. It takes it from the jug. 3. So the jug cools.", ["evaporation"], ""),
        (" ".join(f"In {year} there were {year % 97} jugs." for year in range(1990, 1994)), [], ""),
        ("2 x 3 = 6, 6 x 4 = 24, 24 x 5 = 120, so 120 apples.", ["120 apples"], ""),
        # One phrase three times over within reasons that go on is a figure of speech
        (f"It is the water that cools: {LONG} It is the water that cools. It is the water that cools.", ["clay"], ""),
    ],
)
def test_what_is_wrong_with_a_rationale(rationale, answers, problem):
    assert rationale_problem(rationale, answers) == problem


def test_a_refusal_is_said_at_once():
    assert rationale_problem("x" * 80 + " evaporation: I cannot tell why.", ["evaporation"]) == "refusal"
    assert rationale_problem("x" * 120 + " evaporation: I cannot tell why.", ["evaporation"]) == ""


@pytest.mark.parametrize(
    ("tokens", "window", "problem"),
    [(256, 256, ""), (257, 256, "longer than the encoder's window"), (10**6, None, ""), (0, 256, "")],
)
def test_the_window_holds_as_many_tokens_as_it_says(tokens, window, problem):
    assert rationale_problem(LONG, ["evaporation"], tokens=tokens, window=window) == problem


def test_what_is_worse_is_said_first():
    assert rationale_problem("I cannot tell.", ["evaporation"], tokens=300, window=256) == "refusal"
    assert rationale_problem("Heat leaves.", ["evaporation"], tokens=300, window=256) == "answer missing"


CLOSED = [
    "no",
    "yes",
    "C",
    "Maybe.",
    "לא",
    "ja",
    "Nein.",
    "όχι",
    "Non",
    "sì",
    "हां",
    "tak",
    "так",
    "خیر",
    "có",
    "falsch",
    "没有",
    "7",
]


@pytest.mark.parametrize("answers", [[one] for one in CLOSED])
def test_answers_that_tell_nothing_are_not_looked_for(answers):
    assert rationale_problem("The valve keeps the blood from flowing back.", answers) == ""
    passages = (Passage("a", "It is so."), Passage("b", "There is no C, yes, maybe."))
    request = RankRequest("q", "Is it?", passages, (1.0, 0.5), answers=tuple(answers))
    assert FalseNegatives(absolute_margin=0).reason(request, *request.candidates, gap=0.5) == ""


def test_scripts_without_spaces_are_searched_anywhere():
    assert rationale_problem("日本の首都は東京です。", ["東京"]) == ""
    assert rationale_problem("日本の首都は京都です。", ["東京"]) == "answer missing"
