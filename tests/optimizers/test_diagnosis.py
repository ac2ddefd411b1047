"""The diagnosis counts by hand, and says one sentence."""

from dataclasses import replace

import pytest
from dspy.utils import DummyLM
from radio_dspy.optimizers.diagnosis import Agreement, Diagnosis, agreement_of, recommend

import radio_dspy as radio
from radio_dspy.core.errors import BudgetError, SettingsError
from radio_dspy.distillation import AnswerCorrectness, RetrievalScore
from radio_dspy.distillation.teacher.rationale_quality import RationaleQuality
from tests.settings import radio_of


def row(name, ndcg, low=0.0, calls=0):
    return Agreement(name, ndcg, ndcg - 0.4, low, 1.0, calls)


FOUND = Diagnosis(
    questions=50,
    judged=40,
    relevance="labels",
    candidates=50,
    found=0.9,
    rows=(row("first_stage", 0.4), row("base", 0.4), row("best", 0.9)),
    signals=(row("rationale", 0.505, 0.05, calls=500), row("answer", 0.5, 0.04), row("retrieval", 0.4)),
    rationales=None,
    agreement=None,
    choices=(),
    calls=100,
)
NO_USE = RationaleQuality(40, 0.3, 0.3, 0.0, -0.1, 0.1)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "Train with answer (0 LM calls): it ranks the candidates at nDCG@10 0.500, the reranker at 0.400, and"),
        ({"rationales": NO_USE}, "do not pay for them"),
        ({"signals": (row("rationale", 0.6, 0.1, calls=500), row("answer", 0.5, 0.04))}, "Train with rationale (500"),
        ({"signals": (row("answer", 0.42, -0.01),)}, "Do not train with these signals: none ranks"),
        ({"rows": (row("base", 0.89), row("best", 0.9))}, "Do not train: the first stage leaves nothing to gain"),
        ({"found": 0.2}, "Do not train yet, mend the first stage: only 20% of the questions"),
        (
            {"found": 0.2, "relevance": "answers"},
            "Cannot tell: only 20% of the questions have a candidate that contains",
        ),
        ({"judged": 9}, "Cannot tell: only 9 of 50 questions can be judged"),
    ],
)
def test_the_sentence_follows_from_the_figures(changes, sentence):
    found = replace(FOUND, **changes)
    assert sentence in recommend(found)
    assert replace(found, recommendation=recommend(found)).worth_training == sentence.startswith(("Train", "do not p"))


def test_a_row_is_a_mean_and_its_difference_to_the_reranker():
    found = agreement_of("x", [1.0, 0.5, 0.9], [0.5, 0.5, 0.2], 7)
    assert (found.ndcg, found.gain, found.calls) == (pytest.approx(0.8), pytest.approx(0.4), 7)
    assert found.low <= found.gain <= found.high
    assert agreement_of("x", [], []).ndcg == 0.0


@pytest.fixture
def program(index, small):
    return radio.RetrieveRerankAnswer(index, radio.Rerank(small, "bi-encoder"), candidates=8, k=3)


def test_without_an_lm_nothing_is_asked_and_the_tables_are_readable(program, topic, tmp_path):
    found = radio_of(candidates=10, run_dir=tmp_path / "run").diagnose(program, topic.train, questions=12)
    assert (found.questions, found.relevance, found.calls, found.rationales) == (12, "labels", 0, None)
    assert found.row("base").ndcg <= found.row("best").ndcg <= 1
    assert {one.name for one in found.signals} == {"answer", "retrieval", "teacher"}
    assert found.row("retrieval").ndcg == found.row("first_stage").ndcg
    text = str(found)
    assert text.startswith(found.recommendation)
    assert "best possible order" in text
    assert found.as_dict()["headroom"] == found.headroom


class Explaining(DummyLM):
    def __init__(self):
        super().__init__({"[[ ## rationale ## ]]": {"rationale": "x"}, "": {"answer": "x"}})
        self.asked = 0

    def __call__(self, *args, **kwargs):
        self.asked += 1
        return super().__call__(*args, **kwargs)


def test_what_is_asked_is_counted_limited_and_kept_for_the_compile(program, topic, tmp_path):
    lm, train = Explaining(), topic.train[:6]
    settings = {
        "signals": {AnswerCorrectness(lm, depth=2): 0.5, RetrievalScore(): 0.5},
        "rationale_lm": False,
        "candidates": 8,
        "run_dir": tmp_path / "run",
    }
    found = radio_of(**settings).diagnose(program, train, questions=4)
    assert found.calls == lm.asked == 8
    assert found.row("answer_correctness").calls == 12
    assert [(one.note, one.calls) for one in found.choices] == [("AnswerCorrectness, first 2 passages", 12)]
    radio_of(**settings).diagnose(program, train, questions=4)
    assert lm.asked == 8
    with pytest.raises(BudgetError):
        radio_of(**{**settings, "run_dir": tmp_path / "other"}, max_calls=3).diagnose(program, train)
    with pytest.raises(SettingsError, match="questions must be at least 2"):
        radio_of().diagnose(program, train, questions=1)


def test_rationales_are_judged_by_what_the_lm_makes_of_them(program, topic, tmp_path):
    lm = Explaining()
    found = radio_of(lm, check=False, candidates=8, run_dir=tmp_path / "run").diagnose(program, topic.train[:4])
    assert found.rationales.questions == 4
    assert lm.asked == 4 + 2 * 4
    assert {one.note.split(",")[0] for one in found.choices} >= {"AnswerCorrectness", "AnswerGain", "SetGain"}
