"""Several rationales of a question: asked apart, kept apart, compared apart."""

import numpy as np
import pytest
from dspy.utils import DummyLM

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import RankRequest
from radio_dspy.distillation import RationaleExtractor, RationaleSimilarity, rationale_quality
from radio_dspy.distillation.rationales.writing import explain, explain_several
from radio_dspy.distillation.teacher.rationale_quality import blanked
from radio_dspy.distillation.teacher.signals import agreement
from radio_dspy.runs.run import Run

QUESTIONS = [("a", "Why a?", ("heat",)), ("b", "Why b?", ("cold",))]


class Sampling(DummyLM):
    """Says of each call which sample it is, with what temperature; samples named in ``empty`` say nothing of use."""

    def __init__(self, empty=()):
        super().__init__({"": {"rationale": "x"}})
        self.asked, self.empty = [], empty

    def __call__(self, prompt=None, *, messages=None, **config):
        sample = config.get("rollout_id", 0)
        self.asked.append((sample, config.get("temperature")))
        self.answers = {"": {"rationale": "no" if sample in self.empty else f"sample {sample}: heat, cold"}}
        return super().__call__(prompt, messages=messages, **config)


def several(run, lm, n, given=None, check=True):
    return explain_several(
        QUESTIONS, run, lm=lm, extractor=RationaleExtractor(n=n), given=given or {}, check=check, show_progress=False
    )


def test_each_rationale_is_a_sample_of_its_own_and_asked_for_once(tmp_path):
    lm = Sampling()
    texts, counts = several(Run(tmp_path), lm, 3)
    assert texts == {key: tuple(f"sample {one}: heat, cold" for one in (0, 2, 4)) for key in "ab"}
    assert sorted(lm.asked) == [(0, None)] * 2 + [(2, 0.7)] * 2 + [(4, 0.7)] * 2
    assert (counts.written, counts.reused) == (6, 0)
    texts_again, counts = several(Run(tmp_path), lm, 4)
    assert texts_again["a"] == (*texts["a"], "sample 6: heat, cold")
    assert (counts.written, counts.reused, len(lm.asked)) == (2, 6, 8)
    first, _ = explain(QUESTIONS, Run(tmp_path), lm=lm, extractor=RationaleExtractor(), given={}, show_progress=False)
    assert (first["a"], len(lm.asked)) == ("sample 0: heat, cold", 8)


def test_one_that_is_no_use_is_tried_twice_and_left_out(tmp_path):
    lm = Sampling(empty=(2, 3))
    texts, counts = several(Run(tmp_path), lm, 2)
    assert texts["a"] == ("sample 0: heat, cold",)
    assert [sample for sample, _ in lm.asked].count(3) == 2
    assert counts.useless == {"answer missing": 2}


def test_a_given_rationale_is_the_only_one(tmp_path):
    lm = Sampling()
    texts, counts = several(Run(tmp_path), lm, 2, given={"a": "by heat"})
    assert texts == {"a": ("by heat",), "b": ("sample 0: heat, cold", "sample 2: heat, cold")}
    assert (counts.given, counts.written) == (1, 2)


class Pointing:
    """An encoder of two directions: a text that names ice, and any other."""

    name, window, identity = "pointing", None, {"name": "pointing"}

    def encode_queries(self, texts, **_):
        return np.array([[1.0, 0.0] if "ice" in one else [0.6, 0.8] for one in texts], np.float32)

    encode_passages = encode_queries


@pytest.mark.parametrize(("over", "expected"), [("mean", [(1 + 0.6 * 2) / 3, (0.6 + 1 * 2) / 3]), ("max", [1.0, 1.0])])
def test_a_passage_is_compared_with_each_rationale(monkeypatch, over, expected):
    monkeypatch.setattr("radio_dspy.distillation.teacher.signals.as_encoder", lambda one: one)
    monkeypatch.setattr(
        "radio_dspy.distillation.teacher.signals.fitting_guide", lambda encoder, *parts: f"{parts[0]} {parts[2]}"
    )
    passages = (Passage("i", "ice"), Passage("s", "steam"))
    request = RankRequest("q", "Why?", passages, (1.0, 0.9), ("it",), "ice", more_rationales=("steam", "vapour"))
    signal = RationaleSimilarity(Pointing(), over=over)
    assert signal.score([request])[0] == pytest.approx(expected)
    assert signal.agreement([request]) == pytest.approx([2 / 3])
    alone = RankRequest("q", "Why?", passages, (1.0, 0.9), ("it",), "ice")
    assert signal.score([alone])[0] == pytest.approx([1, 0.6])
    assert signal.agreement([alone]) == [1.0]


def test_settings_and_no_passages():
    with pytest.raises(SettingsError, match="over must be"):
        RationaleSimilarity("all-MiniLM-L6-v2", over="median")
    with pytest.raises(SettingsError, match="n must be at least 1"):
        RationaleExtractor(n=0)
    assert agreement([np.array([]), np.array([])]) == 1.0


class Reading(DummyLM):
    """Reaches the answer only where the rationale says how, and copies it wherever it is named."""

    def __init__(self):
        super().__init__({"heat": {"answer": "heat"}, "vapour": {"answer": "heat"}, "": {"answer": "cold"}})


def test_quality_is_what_the_lm_reaches_with_the_rationale_beyond_what_it_knows(tmp_path):
    texts = {"a": "The vapour brings heat.", "b": "Heat."}
    questions = [("a", "Why a?", ("heat",)), ("b", "Why b?", ("heat",)), ("c", "Why c?", ("heat",))]
    found = rationale_quality(questions, texts, Reading(), run=Run(tmp_path))
    assert (found.questions, found.without, found.with_rationale, found.gain) == (2, 0.0, 0.5, 0.5)
    assert not found.useful, "two questions tell nothing"
    assert "0.500 with the rationale" in str(found)
    assert rationale_quality(questions, {}, Reading()) is None


def test_an_answer_inside_another_word_stays():
    assert blanked("He heated it by heat, HEAT.", ["heat", " "]) == "He heated it by ____, ____."
    assert blanked("Nothing.", []) == "Nothing."
