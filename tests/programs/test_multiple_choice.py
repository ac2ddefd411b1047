import asyncio
import time

import dspy
import pytest
from dspy.utils import DummyLM
from hypothesis import given
from hypothesis import strategies as st
from radio_dspy.programs import MultipleChoice
from radio_dspy.programs.multiple_choice import read_letter

from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.datasets.loading import load_questions
from radio_dspy.datasets.options import option_letters
from radio_dspy.evaluation.metrics import accuracy, dspy_metric
from radio_dspy.rerankers import NoRerank, Rerank
from tests.conftest import scripted, shared

CHOICES = ["cold", "heat", "salt", "The liver", "E. coli"]


@pytest.fixture
def chooser(index, small):
    return MultipleChoice(index, Rerank(small, architecture="bi-encoder"), candidates=10, k=3)


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        # a letter alone
        ("B", "B"),
        ("b", "B"),
        ("b)", "B"),
        ("(B)", "B"),
        ("[b].", "B"),
        (" B.\n", "B"),
        ("**B**", "B"),
        ('"B"', "B"),
        ("a", "A"),
        ("B\nB\nB", "B"),
        # a letter and more
        ("B. heat", "B"),
        ("B) heat kills it", "B"),
        ("(B) heat", "B"),
        ("**B**. Heat kills the yeast.", "B"),
        ("B: heat", "B"),
        ("B - heat", "B"),
        ("B, heat", "B"),
        ("B heat", "B"),
        ("B. warmth", "B"),
        ("B, because warmth kills it", "B"),
        ("A because of the cold", "A"),
        ("A is correct", "A"),
        ("B\n\nThe heat kills the yeast.", "B"),
        ("B\nA cell dies of it.", "B"),
        # a statement
        ("Answer: B", "B"),
        ("ANSWER: b)", "B"),
        ("Answer:\n\n(B) heat", "B"),
        ("The answer is B", "B"),
        ("The answer is a.", "A"),
        ("The answer is **B**.", "B"),
        ("The correct option is: B)", "B"),
        ("Answer: The answer is option B.", "B"),
        ("I think the answer is C.", "C"),
        ("A cell dies in heat. The answer is B.", "B"),
        ("A. cold\nB. heat\nAnswer: B", "B"),
        ("Option B is correct", "B"),
        ("Option A is wrong.\nOption B is right.", "B"),
        ("Letter: C", "C"),
        ("Answer: heat", "B"),
        ("The answer is the liver.", "D"),
        # an option's own text
        ("heat", "B"),
        ("  HEAT. ", "B"),
        ("'heat'", "B"),
        ("liver", "D"),
        ("E. coli", "E"),
        ("Answer: E. coli", "E"),
        # no letter
        ("", ""),
        (" \n", ""),
        ("A cell divides", ""),
        ("A cell divides.", ""),
        ("Answer: A cell divides", ""),
        ("The answer is a cell", ""),
        ("A-level", ""),
        ("A.D. 70", ""),
        ("B12 deficiency", ""),
        ("B cells", ""),
        ("B-cells, because", ""),
        ("Because", ""),
        ("D'oh", ""),
        ("e.g. heat", ""),
        ("E. coli grows", ""),
        ("Dead", ""),
        ("I think B", ""),
        ("heat loss", ""),
        ("It is heat", ""),
        ("Heat and cold", ""),
        # a letter that is not on offer
        ("F", ""),
        ("(Z)", ""),
        ("The answer is G.", ""),
        # several letters, or a letter against itself
        ("A and B", ""),
        ("A or B", ""),
        ("(a) or (b)", ""),
        ("A, B", ""),
        ("A/B", ""),
        ("A\nB", ""),
        ("Answer: B, C", ""),
        ("A. cold B. heat C. salt", ""),
        ("Answer: A) cold\nB) heat\nC) salt", ""),
        ("The answer is A. No, the answer is B.", ""),
        ("A. heat", ""),
        ("The answer is not B", ""),
        ("The wrong answer is B", ""),
    ],
)
def test_letters_are_read_and_never_made_up(reply, letter):
    assert read_letter(reply, CHOICES) == letter


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("\uff22", "B"),
        ("\uff08\uff22\uff09", "B"),
        ("B。", "B"),
        ("B、因为热", "B"),
        ("答案是B", "B"),
        ("正确答案为\uff1a\uff08B\uff09。", "B"),
        ("正解はBです。", "B"),
        ("Bです", "B"),
        ("정답은 B입니다.", "B"),
        ("Die richtige Antwort ist B.", "B"),
        ("La réponse est B.", "B"),
        ("Respuesta: b)", "B"),
        ("A resposta é B", "B"),
        ("La risposta è B.", "B"),
        ("Ответ \u2014 B", "B"),
        ("الإجابة الصحيحة هي B", "B"),
        ("उत्तर: B", "B"),
        ("Đáp án: B", "B"),
        ("Cevap B'dir", "B"),
        ("La respuesta correcta es la B.", "B"),
        ("A resposta correta é a B", "B"),
        ("Antwoord: B", "B"),
        ("Svaret är B", "B"),
        ("Válasz: B", "B"),
        ("Η απάντηση είναι B", "B"),
        ("התשובה היא B", "B"),
        ("پاسخ: B", "B"),
        ("उत्तर B है", "B"),
        ("故选B。", "B"),
        ("Ответ: \u0412", "B"),
        ("\u0412 этом случае", ""),
        ("选择 A 或 B", ""),
        ("不应选B", ""),
        ("La respuesta no es la B", ""),
        ("答案是A。不，答案是B。", ""),
        ("答案是B和C", ""),
        ("答案不是B", ""),
        ("답은 B가 아니다", ""),
        ("La respuesta no es B", ""),
        ("La réponse n'est pas B", ""),
        ("La réponse a changé.", ""),
        ("Die Antwort A ist falsch", ""),
    ],
)
def test_letters_are_read_in_other_languages(reply, letter):
    assert read_letter(reply, CHOICES) == letter


@pytest.mark.parametrize("statement", ["答案是", "answer: ", "Antwort "])
def test_a_reply_of_statements_alone_is_read_at_once(statement):
    begun = time.process_time()
    assert read_letter(statement * 20_000, CHOICES) == ""
    assert time.process_time() - begun < 0.5


def test_an_options_text_is_compared_without_the_form_of_its_marks():
    choices = ["23", "2\u00b3", "Newton\u2019s law", "Café", "желтый", "\u22121", "1"]
    for text, letter in zip(["23", "2^3", "Newton's law.", "CAFE\u0301", "жёлтый", "-1", "1"], "ABCDEFG", strict=True):
        assert read_letter(text, choices) == letter
        assert option_letters([f"{letter}. {text}" if text in "-1 1" else text], choices) == (letter,)
    assert read_letter("2\u00b3", choices) == "B"
    assert option_letters(["2\u00b3"], choices) == ("B",)


def test_options_that_differ_only_in_signs_are_told_apart():
    assert read_letter("-1", ["0", "1", "-1", "12"]) == "C"
    assert read_letter("1.", ["0", "1", "-1", "12"]) == "B"
    assert read_letter("1", ["0", "-1", "2"]) == ""
    assert read_letter("f'", ["f", "f'"]) == "B"


def test_options_with_the_same_text_are_chosen_by_letter_only():
    assert read_letter("yes", ["yes", "Yes.", "no"]) == ""
    assert read_letter("B. yes", ["yes", "Yes.", "no"]) == "B"
    assert read_letter("B", ["yes", "Yes.", "no"]) == "B"


def test_a_single_letter_is_the_letter_and_not_the_text_of_an_option():
    blood = ["O", "A", "B", "AB"]
    assert read_letter("B", blood) == "B"
    assert read_letter("AB", blood) == "D"


def test_up_to_26_options():
    letters = [f"option {number}" for number in range(26)]
    assert read_letter("z)", letters) == "Z"
    assert read_letter("I", letters) == "I"
    assert read_letter("I think so", letters) == ""
    assert read_letter("I, for one, do not know", letters) == ""


@pytest.mark.parametrize(
    ("choices", "got"), [([], "0"), (["yes"], "1"), (["x"] * 27, "27"), ("yes", "the string 'yes'")]
)
def test_too_few_or_too_many_choices_are_an_error(chooser, choices, got):
    with pytest.raises(DataError, match=f"list of 2 to 26 choices, got {got}"):
        read_letter("A", choices)
    with pytest.raises(DataError, match=f"list of 2 to 26 choices, got {got}"):
        chooser(question="Why?", choices=choices)


@given(st.text(alphabet="ABab .,:)(\n*'answeris"), st.lists(st.text(max_size=4), min_size=2, max_size=5))
def test_any_reply_gives_a_letter_on_offer_or_none(reply, choices):
    assert read_letter(reply, choices) in {"", *"ABCDE"[: len(choices)]}


def test_long_replies_are_read_in_no_time():
    started = time.perf_counter()
    for reply in (" " * 50_000 + "B", "'" * 5_000 + "x", "answer " * 5_000, "answer" + " " * 20_000, "a\n" * 5_000):
        read_letter(reply, CHOICES)
    assert time.perf_counter() - started < 2


def test_the_lm_sees_the_options_and_the_reranked_passages(chooser, topic):
    lm = scripted(letter="(b) heat")
    question = topic.test[0].question
    with dspy.context(lm=lm):
        result = chooser(question=question, choices=CHOICES)
    assert result.answer == "B"
    assert len(result.passages) == len(result.scores) == 3
    assert result.scores == sorted(result.scores, reverse=True)
    prompt = lm.history[-1]["messages"][-1]["content"]
    places = [prompt.index(passage.text[:40]) for passage in result.passages]
    assert places == sorted(places)
    assert all(f"{letter}. {choice}" in prompt for letter, choice in zip("ABCDE", CHOICES, strict=True))


def test_passages_are_found_for_the_question_alone(chooser, program, topic):
    question, others = topic.test[0].question, [one.question for one in topic.test[1:5]]
    with dspy.context(lm=scripted(letter="A", answer="x")):
        chosen, plain = chooser(question=question, choices=others), program(question=question)
    assert [one.id for one in chosen.passages] == [one.id for one in plain.passages]
    assert chosen.scores == plain.scores


@pytest.mark.parametrize("replies", [[{"letter": "a cell does"}], [{"letter": ""}], [{"other": "B"}, {"other": "B"}]])
def test_an_unreadable_reply_is_no_letter(chooser, topic, replies):
    with dspy.context(lm=DummyLM(replies)):
        result = chooser(question=topic.test[0].question, choices=CHOICES)
        assert result.answer == ""
        assert len(result.passages) == 3


def test_asynchronous_and_batched_calls_agree(chooser, topic):
    examples = [dspy.Example(question=one.question, choices=CHOICES) for one in topic.test[:3]]
    examples = [one.with_inputs("question", "choices") for one in examples]
    with dspy.context(lm=scripted(letter="C")):
        single = [chooser(**one.inputs()) for one in examples]
        gathered = [asyncio.run(chooser.acall(**one.inputs())) for one in examples]
        batch = chooser.batch(examples, num_threads=2, timeout=0, disable_progress_bar=True)
    for results in (gathered, batch):
        assert [(one.answer, one.passages) for one in results] == [("C", one.passages) for one in single]
    with dspy.context(lm=DummyLM([{"other": "B"}, {"other": "B"}])):
        assert asyncio.run(chooser.acall(question="Why?", choices=CHOICES)).answer == ""


@pytest.mark.parametrize("file", [("mmlu", "questions.jsonl"), ("pubmedqa", "dev.jsonl")])
def test_evaluate_on_questions_as_they_are_loaded(chooser, file):
    devset = load_questions(shared("data", *file))[:8]
    right = sum(one.answers == ["A"] for one in devset)
    evaluate = dspy.Evaluate(devset=devset, metric=dspy_metric(accuracy), display_progress=False)
    with dspy.context(lm=scripted(letter="The answer is A.")):
        assert evaluate(chooser).score == pytest.approx(100 * right / 8)
    assert 0 < right < 8


def test_bootstrap_few_shot_keeps_the_right_answers_as_demonstrations(chooser, topic):
    trainset = [
        dspy.Example(question=one.question, choices=CHOICES, answer=answer).with_inputs("question", "choices")
        for one, answer in zip(topic.train[:3], "ABB", strict=True)
    ]
    optimizer = dspy.BootstrapFewShot(metric=dspy_metric(accuracy), max_labeled_demos=0)
    with dspy.context(lm=scripted(letter="B")):
        compiled = optimizer.compile(chooser, trainset=trainset)
    assert [one.letter for one in compiled.choose.demos] == ["B", "B"]
    assert compiled.rerank.weights.checkpoint == chooser.rerank.weights.checkpoint


def test_only_the_prompt_and_the_weights_are_parameters(chooser):
    assert [name for name, _ in chooser.named_parameters()] == ["rerank.weights", "choose"]


def test_k_and_candidates_must_fit(index):
    with pytest.raises(SettingsError, match="1 <= k <= candidates, got k=5 and candidates=3"):
        MultipleChoice(index, NoRerank(), candidates=3)


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        (r"\boxed{B}", "B"),
        (r"So the dough dies.\n\nAnswer: $\boxed{B}$", "B"),
        (r"\boxed{\text{heat}}", "B"),
        (r"First \boxed{A}, no: \boxed{B}.", "B"),
        (r"\boxed{42}", ""),
    ],
)
def test_a_boxed_answer_is_read(reply, letter):
    assert read_letter(reply, ["cold", "heat"]) == letter
