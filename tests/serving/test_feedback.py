"""Feedback is added to a file of feedback, and to no other one."""

import pytest

from radio_dspy import load_groups, load_questions
from radio_dspy.core.errors import SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.serving.feedback import add_feedback, check_feedback, feedback_row
from radio_dspy.serving.shapes import Feedback

ROW = feedback_row(Feedback(question="why?", good=True, passages={"a": True}), [Passage("a", "Yeast dies.")])


@pytest.mark.parametrize(
    "text",
    [
        '{"id": "p1", "contents": "Yeast"}\n',
        '{"id": "q1", "question": "why?", "golden_answers": ["heat"], "metadata": {"supporting_ids": ["p1"]}}\n',
        '{"query": "why?", "pos": ["a"], "neg": ["b"]}\n',
        "a note",
        "sk-key-of-the-server\n",
        "GGUF\x03\x00",
        '{"a": ' + "[" * 100_000,
        "\n",
    ],
    ids=lambda text: repr(text)[:20],
)
def test_a_file_of_something_else_stays(tmp_path, text):
    path = tmp_path / "mine.jsonl"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"mine\.jsonl: holds something else than feedback, and stays"):
        check_feedback(path)
    add_feedback(tmp_path / "ours.jsonl", ROW)
    (tmp_path / "ours.jsonl").write_text((tmp_path / "ours.jsonl").read_text() + text)  # also behind lines of ours
    with pytest.raises(SettingsError, match="holds something else"):
        check_feedback(tmp_path / "ours.jsonl")


def test_one_that_is_new_empty_or_of_ours_is_added_to(tmp_path):
    path = tmp_path / "new" / "feedback.jsonl"
    assert check_feedback(path) == path
    add_feedback(path, ROW)
    for count in range(1, 3):
        assert path.read_text().count("\n") == count
        add_feedback(check_feedback(path), ROW)


HEAT = {"answer": "heat", "good": True}
MARKED = {"passages": {"a": True, "b": False}}


@pytest.mark.parametrize(
    ("given", "answers", "relevant", "groups"),
    [
        ([HEAT, HEAT | {"good": False}], [], [], []),
        ([HEAT | {"good": False}, HEAT], ["heat"], [], []),
        ([HEAT, {"answer": "cold", "good": False}], ["heat"], [], []),
        ([{"passages": {"a": True}}, {"passages": {"a": False}}], [], [], []),
        ([{"passages": {"a": True}}, {"passages": {"b": False}}], [], ["a"], [(["A."], ["B."])]),
        ([MARKED, {"passages": {"a": False, "b": True}}], [], ["b"], [(["B."], ["A."])]),
        ([MARKED, MARKED, MARKED], [], ["a"], [(["A."], ["B."])]),
        ([MARKED, MARKED | {"choices": ["heat", "ice"]}], [], ["a"], [(["A."], ["B."])] * 2),
    ],
    ids=range(8),
)
def test_the_last_word_on_an_answer_or_passage_counts(given, answers, relevant, groups):
    texts = [Passage("a", "A."), Passage("b", "B.")]
    rows = [feedback_row(Feedback(question="why?", **one), texts) for one in given]
    question = load_questions(rows)[0]
    assert (question.answers, question.relevant) == (answers, relevant)
    assert [(one.pos, one.neg) for one in (load_groups(rows) if groups else [])] == groups
