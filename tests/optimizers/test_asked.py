"""Who writes the rationales, and how many calls are in flight, where RADIO is not told."""

import json
import logging

import dspy
import pytest

import radio_dspy as radio
from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.distillation.teacher.signals import AnswerSimilarity, RetrievalScore
from tests.conftest import UnaskedLM, scripted
from tests.settings import radio_of


class Own:
    """A signal of a user's own that does not say what it reads."""

    name = "own"

    def score(self, requests):
        return [[0.0] * len(one.candidates) for one in requests]


def student(index):
    return radio.RetrieveRerankAnswer(index, radio.Rerank(index.encoder, "bi-encoder"), candidates=8)


def test_none_asks_the_lm_of_dspys_settings_and_says_so(index, topic, tmp_path, caplog):
    lm = scripted(rationale="Yeast dies in hot water.")
    optimizer = radio_of(rationale_lm=None, candidates=8, epochs=1, max_length=32, gate=False, run_dir=tmp_path)
    with dspy.context(lm=lm), caplog.at_level(logging.WARNING):
        assert optimizer.estimate(student(index), trainset=topic.train[:4], valset=topic.test[:2]).calls == 4
        optimizer.compile(student(index), trainset=topic.train[:4], valset=topic.test[:2])
    assert "Rationales are asked of dummy, the LM of dspy.settings" in caplog.text
    assert optimizer.report.rationales["written"] == 4
    assert json.loads((tmp_path / "manifest.json").read_text())["settings"]["rationale_lm"][0] == "dummy"


def test_no_lm_anywhere_is_an_error_that_says_both_ways(index, topic):
    optimizer = radio.RADIO()
    for method in (optimizer.compile, optimizer.estimate):
        with pytest.raises(SettingsError, match=r"dspy\.configure\(lm=\.\.\.\), or RADIO\(rationale_lm=False\)"):
            method(student(index), trainset=topic.train[:4], valset=topic.test[:2])


def test_no_lm_is_needed_where_rationales_are_given_or_not_read(index, topic, small):
    given = {one.id: "Because." for one in topic.train[:4]}
    for settings in ({"rationales": given}, {"signals": {AnswerSimilarity(small): 1.0, RetrievalScore(): 1.0}}):
        bill = radio.RADIO(**settings).estimate(student(index), trainset=topic.train[:4], valset=topic.test[:2])
        assert bill.calls == 0
    with pytest.raises(SettingsError, match="RADIO has no LM"):
        radio.RADIO(rationales=given).estimate(student(index), trainset=topic.train[:5], valset=topic.test[:2])


def test_a_teacher_that_reads_no_rationale_asks_nobody(small):
    with dspy.context(lm=UnaskedLM({})) as _:
        assert radio.RADIO(signals={RetrievalScore(): 1.0}).rationale_lm is None
        assert radio.RADIO(signals={Own(): 1.0}).rationale_lm is dspy.settings.lm


def test_threads_are_dspys_unless_they_are_given():
    with dspy.context(num_threads=3):
        assert radio.RADIO().num_threads == 3
        assert radio.RADIO(num_threads=2).num_threads == 2
    with pytest.raises(SettingsError, match="num_threads must be at least 1"):
        radio.RADIO(num_threads=0)
    with pytest.raises(SettingsError, match="rationale_lm must be"):
        radio.RADIO(rationale_lm=True)


@pytest.mark.parametrize("fields", [["answer", "answers", "golden_answers", "response", "output"], ["gold"] * 4])
def test_gold_answers_lie_in_whichever_field(index, topic, fields):
    rows = [
        dspy.Example(id=one.id, question=one.question, **{field: one.answers[0]}).with_inputs("question")
        for one, field in zip(topic.train, fields, strict=False)
    ]
    named = {"answer_field": "gold"} if "gold" in fields else {}
    optimizer = radio_of(candidates=8, epochs=1, max_length=32, gate=False, **named)
    optimizer.compile(student(index), trainset=rows, valset=rows[:1])
    assert optimizer.report.questions["used"] == len(rows)


def test_an_answer_field_that_no_example_has_is_an_error(index, topic):
    with pytest.raises(DataError, match="no example has 'gold'"):
        radio_of(answer_field="gold").compile(student(index), trainset=topic.train[:4])
