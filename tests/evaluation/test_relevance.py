import dspy
import pytest

from radio_dspy.core.errors import DataError
from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import RankRequest
from radio_dspy.evaluation.relevance import answer_metrics, compare, compare_each, contains_answer, judge
from tests.conftest import scripted

A, B, C = (
    Passage("a", "Salt draws water."),
    Passage("b", "The ham hung in the loft."),
    Passage("c", "Smoke keeps flies off."),
)


def request(key, *, relevant=(), answers=("salt",), passages=(B, A, C)):
    return RankRequest(key, "why?", passages, (0.9, 0.8, 0.7), answers=answers, relevant=frozenset(relevant))


def test_labels_are_used_where_there_are_any_and_unlabelled_questions_are_left_out():
    verdict = judge([request("one", relevant=("c",)), request("two")])
    assert (verdict.source, verdict.relevant, verdict.judged) == ("labels", (frozenset("c"), None), 1)


def test_without_labels_the_passages_that_contain_an_answer_count():
    verdict = judge([request("one"), request("two", answers=())])
    assert (verdict.source, verdict.relevant) == ("answers", (frozenset("a"), None))


def test_yes_and_no_judge_nothing_where_there_are_no_labels():
    passages = (A, B, Passage("n", "There is no salt, yes."))
    answers = (("no",), ("Yes.",), ("nein",), ("yes", "salt"), ("7",))
    found = judge([request(str(i), answers=one, passages=passages) for i, one in enumerate(answers)]).relevant
    assert found == (None, None, None, frozenset("an"), frozenset())


def test_an_answer_must_stand_as_whole_words():
    assert contains_answer(A, ["the SALT!"])
    assert not contains_answer(A, ["alt"])
    assert not contains_answer(A, ["", "the"])


def test_rows_are_compared_on_the_same_questions():
    requests = [request("one", relevant=("a",)), request("two", relevant=("b",)), request("three")]
    first = [one.ranking() for one in requests]
    best = [one.ranking() for one in (request("one", passages=(A, B, C)), request("two"), request("three"))]
    assert compare({"first_stage": first, "best": best}, requests, ("mrr",)) == {
        "first_stage": {"mrr": 0.75},
        "best": {"mrr": 1.0},
    }
    assert compare_each({"first_stage": first}, requests, ("mrr",)) == {"first_stage": {"mrr": [0.5, 1.0]}}


def test_no_questions_score_zero():
    assert compare({"base": []}, [], ("mrr",)) == {"base": {"mrr": 0.0}}


def test_answers_are_scored_and_unreadable_ones_are_wrong():
    class Program(dspy.Module):
        def forward(self, question):
            if question == "broken?":
                raise dspy.utils.exceptions.AdapterParseError("Plain", dspy.Signature("question -> answer"), "")
            return dspy.Prediction(answer="It is the salt")

    examples = [
        dspy.Example(question="why?", answers=["salt"]),
        dspy.Example(question="broken?", answers=["salt"]),
        dspy.Example(question="unanswered?", answers=[]),
    ]
    scores = answer_metrics(Program(), examples, scripted(), show_progress=False)
    assert scores["sub_exact_match"] == 0.5
    assert scores["exact_match"] == 0.0
    assert scores["token_f1"] == pytest.approx(0.25)


class Chooser(dspy.Module):
    """Chooses the option that the question names."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, question, choices):
        self.calls.append(question)
        if question == "broken?":
            raise dspy.utils.exceptions.AdapterParseError("Plain", dspy.Signature("question -> answer"), "")
        return dspy.Prediction(answer="AB"[choices.index(question)] if question in choices else None)


def choice(question, answer, subject=None):
    metadata = {"subject": subject} if subject else {}
    return dspy.Example(question=question, choices=["ice", "fire"], answers=[answer], metadata=metadata)


def test_multiple_choice_is_judged_by_the_letter():
    examples = [choice("ice", "A"), choice("fire", "A"), choice("fire", "b"), choice("broken?", "A"), choice("x", "B")]
    assert answer_metrics(Chooser(), examples, scripted(), show_progress=False) == {"accuracy": pytest.approx(2 / 5)}


def test_multiple_choice_by_mmlu_category_where_every_question_has_a_subject():
    examples = [
        choice("ice", "A", "astronomy"),
        choice("ice", "B", "college_physics"),
        choice("fire", "B", "sociology"),
        dspy.Example(question="no answer", choices=["ice", "fire"], answers=[]),
    ]
    expected = {"accuracy": pytest.approx(2 / 3), "accuracy STEM": 0.5, "accuracy social sciences": 1.0}
    assert answer_metrics(Chooser(), examples, scripted(), show_progress=False) == expected
    examples.append(choice("ice", "A"))
    assert answer_metrics(Chooser(), examples, scripted(), show_progress=False) == {"accuracy": 0.75}
    own = [choice("ice", "A", "cardiology"), choice("ice", "A", "dentistry")]
    assert answer_metrics(Chooser(), own, scripted(), show_progress=False) == {"accuracy": 1.0}


def test_what_does_not_fit_is_refused_before_the_lm_is_asked():
    program = Chooser()
    with pytest.raises(DataError, match="'alchemy' is not one of MMLU's 57 subjects"):
        answer_metrics(program, [choice("ice", "A", "astronomy"), choice("ice", "A", "alchemy")], scripted())
    with pytest.raises(DataError, match="Chooser answers multiple choice, but question 'q7' has no 'choices'"):
        answer_metrics(program, [choice("ice", "A"), dspy.Example(id="q7", question="why?", answers=["A"])], scripted())
    assert program.calls == []


def test_a_program_without_choices_still_takes_questions_that_have_them():
    class Program(dspy.Module):
        def forward(self, question):
            return dspy.Prediction(answer="B")

    scores = answer_metrics(Program(), [choice("ice", "C"), choice("fire", "B")], scripted(), show_progress=False)
    assert scores == {"exact_match": 0.5, "sub_exact_match": 0.5, "token_f1": 0.5}


def test_all_three_programs_can_be_judged(program, index, topic):
    from radio_dspy.programs import MultiHop, MultipleChoice

    from radio_dspy.rerankers import NoRerank

    lm = scripted(answer="salt", query="DONE", letter="B")
    questions = [dspy.Example(question=one.question, answers=["salt"]) for one in topic.test[:2]]
    for one in (program, MultiHop(index, NoRerank(), candidates=10)):
        assert answer_metrics(one, questions, lm, show_progress=False)["exact_match"] == 1.0
    choices = [choice(questions[0].question, "B"), choice(questions[1].question, "A")]
    chooser = MultipleChoice(index, NoRerank(), candidates=10)
    assert answer_metrics(chooser, choices, lm, show_progress=False) == {"accuracy": 0.5}
