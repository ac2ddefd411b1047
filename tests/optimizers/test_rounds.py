"""On-policy rounds: LMs are asked about what the aligned reranker newly ranks first, and the best round is taken."""

import json

import pytest
from dspy.utils import DummyLM
from radio_dspy.optimizers.pipeline import Lesson, _Outcome

import radio_dspy as radio
from radio_dspy.core.errors import BudgetError, SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import RankRequest
from radio_dspy.distillation import AnswerCorrectness, RetrievalScore, SetGain
from radio_dspy.distillation.gate.decision import Candidate, Decision
from radio_dspy.distillation.teacher import gains
from radio_dspy.distillation.train_and_gate import Alignment
from tests.settings import radio_of

QUESTION = RankRequest(
    "q", "Why?", tuple(Passage(one, f"tells of {one}") for one in "abcde"), (5.0, 4.0, 3.0, 2.0, 1.0), ("heat",)
)


class Counting(DummyLM):
    """Answers from the passage, and counts."""

    def __init__(self):
        super().__init__({"tells of e": {"answer": "heat"}, "yeast": {"answer": "yeast"}, "": {"answer": "cold"}})
        self.asked = 0

    def __call__(self, *args, **kwargs):
        self.asked += 1
        return super().__call__(*args, **kwargs)


def test_a_signal_is_also_asked_about_the_first_of_other_rankings(tmp_path):
    lm = Counting()
    signal = AnswerCorrectness(lm, depth=2, keep=tmp_path / "kept.jsonl")
    assert signal.score([QUESTION])[0].tolist() == [0, 0, 0, 0, 0]
    assert lm.asked == 2
    with signal.also_about({"q": ("e", "a", "d")}):
        assert signal.score([QUESTION])[0].tolist() == [0, 0, 0, 0, 1]
    assert lm.asked == 3, "a and b were asked about before, d is not among the first two"
    with signal.also_about({"q": ("e", "a")}, {"q": ("d", "e")}):
        assert signal.score([QUESTION])[0].tolist() == [0, 0, 0, 0, 1]
    assert lm.asked == 4
    signal.score([QUESTION])
    assert lm.asked == 4


def test_a_set_becomes_that_of_the_last_ranking(monkeypatch):
    sets = []

    def logprob(lm, question, passages, answers):
        sets.append("".join(one.id for one in passages))
        return -1.0 if "e" in sets[-1] else -3.0

    monkeypatch.setattr(gains, "best_logprob", logprob)
    signal = SetGain(Counting(), k=2)
    with signal.also_about({"q": ("a", "b")}, {"q": ("e", "d", "a")}):
        assert signal.score([QUESTION])[0].tolist() == [0, 0, 0, 0, 2]
    assert sets == ["ed", "d", "e"]


def outcome(chosen, mean, key):
    candidates = (Candidate("base", 0, 0.3, 0, 1), Candidate("trained", 1, mean, 0, 1))
    decision = Decision(chosen, f"chose {chosen}", "m", 20, candidates)
    return Lesson([], {}, key), Alignment(None, None, decision)


@pytest.mark.parametrize(
    ("rounds", "taken"),
    [
        ([("trained", 0.4), ("trained", 0.5)], 1),
        ([("trained", 0.5), ("trained", 0.4)], 0),
        ([("base", 0.4), ("trained", 0.35)], 1),
        ([("trained", 0.4), ("base", 0.9)], 0),
        ([("base", 0.3), ("base", 0.3)], 0),
        ([("trained", 0.4), ("trained", 0.6), ("trained", 0.5)], 1),
    ],
)
def test_the_best_round_at_the_gate_is_taken(rounds, taken):
    found = None
    for number, (chosen, mean) in enumerate(rounds):
        lesson, alignment = outcome(chosen, mean, str(number))
        found = _Outcome(lesson, alignment, ()) if found is None else found.after(lesson, alignment)
    assert found.lesson.key == str(taken)
    assert [one["round"] for one in found.told] == list(range(1, len(rounds) + 1))
    assert [one["chosen"] for one in found.told] == [chosen for chosen, _ in rounds]


def test_without_a_gate_the_last_round_is_taken():
    first, second = Lesson([], {}, "1"), Lesson([], {}, "2", new_passages=3)
    found = _Outcome(first, Alignment(None, None, None), ()).after(second, Alignment(None, None, None))
    assert found.lesson is second
    assert [one["new_passages"] for one in found.told] == [0, 3]


class Measuring(Counting):
    """Answers with the length of what it was asked."""

    def __call__(self, prompt=None, *, messages=None, **options):
        self.answers = {"": {"answer": str(len(messages[-1]["content"]))}}
        return super().__call__(prompt, messages=messages, **options)


def last_digit(written, answers):
    """A metric that differs from passage to passage, and means nothing."""
    return float(written[-1]) / 10


def aligner(lm, folder, **settings):
    return radio_of(
        signals={AnswerCorrectness(lm, depth=2, metric=last_digit): 0.5, RetrievalScore(): 0.5},
        **{"rounds": 2, "gate": False, "candidates": 8, "epochs": 1, "learning_rate": 5e-4, "max_length": 32},
        false_negatives=None,
        run_dir=folder,
        **settings,
    )


def test_a_second_round_asks_about_new_passages_only_and_is_taken_up_again(index, small, topic, tmp_path):
    program = radio.RetrieveRerankAnswer(index, radio.Rerank(small, "bi-encoder"), candidates=8, k=3)
    train, held_out = topic.train[:4], topic.test[:2]
    lm, folder = Measuring(), tmp_path / "run"
    optimizer = aligner(lm, folder)
    (bill,) = optimizer.estimate(program, trainset=train, valset=held_out).stages
    assert (bill.calls, bill.calls_at_most) == (12, 16)
    aligned = optimizer.compile(program, trainset=train, valset=held_out)
    first, second = optimizer.report.rerankers[0].rounds
    assert first["new_passages"] == 0 < second["new_passages"] <= 8
    assert lm.asked == 8 + second["new_passages"] == optimizer.report.spending["signals"]["calls"]
    assert "round 2: 4 groups" in str(optimizer.report)
    assert {one.name for one in folder.glob("groups*")} == {"groups.jsonl", "groups-round-2.jsonl"}
    assert len(list(folder.glob("reranker-*"))) == 2
    assert aligned.rerank.weights.training[-1]["settings"]["rounds"] == 2
    again = Measuring()
    resumed = aligner(again, folder).compile(program, trainset=train, valset=held_out)
    assert (again.asked, resumed.rerank.weights) == (0, aligned.rerank.weights)
    with pytest.raises(BudgetError):
        aligner(Measuring(), tmp_path / "other", max_calls=8).compile(program, trainset=train, valset=held_out)
    kept = [json.loads(line) for line in (tmp_path / "other" / "signals.jsonl").read_text().splitlines()]
    assert len(kept) == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"rounds": 2}, r"such as AnswerGain\(lm, depth=10\)"),
        ({"rounds": 2, "signals": {AnswerCorrectness(Counting()): 1.0}}, "rounds= asks an LM"),
        ({"min_agreement": 0.5, "signals": {RetrievalScore(): 1.0}}, "min_agreement needs"),
    ],
)
def test_what_could_bring_nothing_is_refused_at_once(settings, message):
    with pytest.raises(SettingsError, match=message):
        radio_of(**settings)
