import pytest

from radio_dspy.rerankers.rationale import fitting_guide, guide

QUESTION, WHY = "Why is it cold in the jug?", "Vapour takes heat along."
NAMES = [f"name {i}" for i in range(30)]


class Words:
    """Counts words and two special tokens, and reads forty of them."""

    window = 40

    def count_tokens(self, text):
        return len(text.split()) + 2


@pytest.mark.parametrize(
    ("question", "answers", "rationale"),
    [
        (QUESTION, ["evaporation"], WHY),
        (QUESTION, NAMES, WHY),
        (QUESTION, NAMES, ""),
        ("word " * 100, NAMES, WHY),
        ("word " * 100, ["evaporation"], WHY),
        ("word " * 100, [], WHY),
        ("\n" + "ask me " * 30, [" ", "evaporation"], ""),
    ],
)
def test_a_guide_is_read_as_far_as_answer_and_rationale(question, answers, rationale):
    text = fitting_guide(Words(), question, answers, rationale)
    assert Words().count_tokens(text) <= Words.window
    assert text.startswith(question.split()[0])
    assert rationale in text
    assert next((one for one in answers if one.strip()), "") in text


def test_as_many_answers_are_kept_as_leave_room():
    assert fitting_guide(Words(), QUESTION, NAMES[:16], "") == guide(QUESTION, NAMES[:15])
    assert fitting_guide(Words(), QUESTION, NAMES[:10], WHY) == guide(QUESTION, NAMES[:10], WHY)
    few = fitting_guide(Words(), QUESTION, NAMES[:3], "word " * 60)
    assert few == guide(QUESTION, NAMES[:3], "word " * 60)


def test_a_guide_ends_its_sentences_once_in_every_script():
    assert guide("Was ist es\uff1f", ["Salz。", " "], "Weil!") == "Was ist es\uff1f Salz。 Weil!"
    assert guide("यह क्या है।", ["नमक"]) == "यह क्या है। नमक."
